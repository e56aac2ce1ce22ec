package cognitotest

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// routeControl adds the control endpoints. They answer JSON, an error as {"error":"…"} with status 400. What changes
// something is POST, with its parameters in the query or in a form.
func (s *Server) routeControl(mux *http.ServeMux) {
	mux.HandleFunc("GET /_control/state", s.control(s.controlState, nil))
	for name, action := range controlActions {
		mux.HandleFunc("POST /_control/"+name, s.control(func(r *http.Request) (any, error) {
			p, err := s.controlPool(r)
			if err != nil {
				return nil, err
			}
			return action.run(p, r.Form)
		}, append(action.parameters, "pool")))
	}
}

// controlActions are the POST endpoints by name. Every one takes the parameter pool as well, which may be left out if
// there is only one.
var controlActions = map[string]struct {
	parameters []string
	run        func(*Pool, url.Values) (any, error)
}{
	"rotate":     {nil, controlRotate},
	"remove-key": {[]string{"kid"}, controlRemoveKey},
	"fail":       {[]string{"endpoint", "status", "body", "delay", "redirect", "huge", "hang", "drop", "truncate", "times"}, controlFail},
	"heal":       {[]string{"endpoint"}, controlHeal},
	"token":      {[]string{"client", "use", "user", "scope", "ttl"}, controlToken},
}

// control guards an endpoint, reads its parameters, and writes what it returns.
func (s *Server) control(run func(*http.Request) (any, error), parameters []string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := fromHere(r); err != nil {
			writeControl(w, http.StatusForbidden, object{{"error", err.Error()}})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
		answer, err := any(nil), r.ParseForm()
		if err == nil {
			err = checkParameters(r.Form, parameters)
		}
		if err == nil {
			answer, err = run(r)
		}
		if err != nil {
			writeControl(w, http.StatusBadRequest, object{{"error", err.Error()}})
			return
		}
		writeControl(w, http.StatusOK, answer)
	}
}

// fromHere refuses what a web page in the developer's browser could send: a loopback listener alone does not keep it
// out, since a page may post to any address, and DNS rebinding can give it a name for this one.
func fromHere(r *http.Request) error {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host = strings.Trim(host, "[]"); !isLoopbackHost(host) {
		return fmt.Errorf("the request's Host is %q, want localhost or a loopback address", r.Host)
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		return fmt.Errorf("the request comes from a web page of %q, want none", origin)
	}
	return nil
}

func checkParameters(form url.Values, known []string) error {
	var errs []error
	for _, name := range sortedKeys(form) {
		switch {
		case !slices.Contains(known, name):
			errs = append(errs, fmt.Errorf("there is no parameter %q, want one of [%s]", name, strings.Join(known, " ")))
		case len(form[name]) > 1:
			errs = append(errs, fmt.Errorf("parameter %q is there %d times, want it once", name, len(form[name])))
		}
	}
	return errors.Join(errs...)
}

func (s *Server) controlPool(r *http.Request) (*Pool, error) {
	id := r.Form.Get("pool")
	if id == "" && len(s.pools) == 1 {
		return s.pools[0], nil
	}
	if p := s.Pool(id); p != nil {
		return p, nil
	}
	ids := make([]string, len(s.pools))
	for i, p := range s.pools {
		ids[i] = p.ID()
	}
	return nil, fmt.Errorf("pool is %q, want one of [%s]", id, strings.Join(ids, " "))
}

// controlState tells keys, clients, faults and counts. It holds no secret.
func (s *Server) controlState(*http.Request) (any, error) {
	var pools []object
	for _, p := range s.pools {
		var clients []object
		p.mu.Lock()
		for _, id := range sortedKeys(p.clients) {
			c := p.clients[id]
			clients = append(clients, object{{"id", id}, {"name", c.Name}, {"flows", c.flows()}, {"scopes", c.Scopes}})
		}
		requests, failing := object{}, []Endpoint{}
		for _, e := range Endpoints() {
			requests = append(requests, member{string(e), p.requests[e]})
			if _, ok := p.faults[e]; ok {
				failing = append(failing, e)
			}
		}
		p.mu.Unlock()
		pools = append(pools, append(keyState(p), object{{"clients", clients}, {"requests", requests}, {"failing", failing}}...))
	}
	return object{{"pools", pools}}, nil
}

func keyState(p *Pool) object {
	var kids []string
	for _, k := range p.Keys() {
		kids = append(kids, k.ID)
	}
	return object{{"pool", p.ID()}, {"access_kid", p.AccessKey().ID}, {"id_kid", p.IDKey().ID}, {"published_kids", kids}}
}

func controlRotate(p *Pool, _ url.Values) (any, error) {
	p.Rotate()
	return keyState(p), nil
}

func controlRemoveKey(p *Pool, form url.Values) (any, error) {
	kid := form.Get("kid")
	if !p.RemoveKey(kid) {
		return nil, fmt.Errorf("kid is %q, want a published one; GET /_control/state lists them", kid)
	}
	return keyState(p), nil
}

func controlFail(p *Pool, form url.Values) (any, error) {
	e, err := endpointOf(form)
	f, faultErr := faultOf(form)
	if err := errors.Join(err, faultErr); err != nil {
		return nil, err
	}
	p.Fail(e, f)
	return object{{"pool", p.ID()}, {"failing", e}}, nil
}

func controlHeal(p *Pool, form url.Values) (any, error) {
	e, err := endpointOf(form)
	if err != nil {
		return nil, err
	}
	p.Heal(e)
	return object{{"pool", p.ID()}, {"healed", e}}, nil
}

func endpointOf(form url.Values) (Endpoint, error) {
	e := Endpoint(form.Get("endpoint"))
	if !slices.Contains(Endpoints(), e) {
		return "", fmt.Errorf("endpoint is %q, want one of %v", e, Endpoints())
	}
	return e, nil
}

func faultOf(form url.Values) (f Fault, err error) {
	var errs []error
	number := func(name string, low, high int64) int64 {
		text := form.Get(name)
		if text == "" {
			return 0
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < low || n > high {
			errs = append(errs, fmt.Errorf("%s is %q, want a number from %d to %d", name, text, low, high))
		}
		return n
	}
	flag := func(name string) bool {
		text := form.Get(name)
		if text != "" && text != "true" {
			errs = append(errs, fmt.Errorf("%s is %q, want true", name, text))
		}
		return text == "true"
	}

	f = Fault{
		Status:    int(number("status", 200, 599)),
		HugeBytes: number("huge", 1, 1<<40),
		Times:     int(number("times", 1, 1<<20)),
		Redirect:  form.Get("redirect"),
		Hang:      flag("hang"),
		Drop:      flag("drop"),
		Truncate:  flag("truncate"),
	}
	if form.Has("body") {
		f.Body = []byte(form.Get("body"))
	}
	if text := form.Get("delay"); text != "" {
		if f.Delay, err = time.ParseDuration(text); err != nil || f.Delay <= 0 {
			errs = append(errs, fmt.Errorf("delay is %q, want a duration such as 300ms or 2s", text))
		}
	}
	if len(errs) == 0 && f.Status == 0 && f.HugeBytes == 0 && f.Redirect == "" && !f.Hang && !f.Drop && f.Body == nil && f.Delay == 0 {
		errs = append(errs, errors.New("nothing says how to fail, want one of status, body, delay, redirect, huge, hang, drop"))
	}
	return f, errors.Join(errs...)
}

// controlToken mints a token without asking for a secret.
func controlToken(p *Pool, form url.Values) (any, error) {
	var opts []TokenOption
	if form.Has("scope") {
		opts = append(opts, Scopes(strings.Fields(form.Get("scope"))...))
	}
	if text := form.Get("ttl"); text != "" {
		ttl, err := time.ParseDuration(text)
		if err != nil {
			return nil, fmt.Errorf("ttl is %q, want a duration such as 5m, or -5m for a token that has expired", text)
		}
		opts = append(opts, TTL(ttl))
	}
	clientID, user := form.Get("client"), form.Get("user")
	if clientID == "" {
		return nil, errors.New(`client is "", want a client ID; one that the pool does not have is fine`)
	}
	if user == "" {
		user = "jane"
	}
	var token string
	switch use := form.Get("use"); use {
	case "", "machine":
		token = p.Token(clientID, opts...)
	case "user":
		token = p.UserToken(clientID, user, opts...)
	case "id":
		token = p.IDToken(clientID, user, opts...)
	default:
		return nil, fmt.Errorf("use is %q, want machine, user or id", use)
	}
	return object{{"token", token}}, nil
}

func writeControl(w http.ResponseWriter, status int, answer any) {
	writeJSON(w, status, "application/json", append(mustMarshal(answer), '\n'))
}
