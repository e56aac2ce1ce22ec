package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	coltrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// fetch gets a page of one of extauthz's HTTP listeners.
func fetch(t *testing.T, url string, edit ...func(*http.Request)) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range edit {
		e(req)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: clientTimeout}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

// metric returns the sum of the metrics whose lines begin with prefix.
func (x *service) metric(t *testing.T, prefix string) (sum int64) {
	t.Helper()
	_, _, body := fetch(t, "http://"+x.Metrics+"/metrics")
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, prefix) {
			continue
		}
		_, number, _ := strings.Cut(strings.TrimSpace(line), "} ")
		n, err := strconv.ParseFloat(number, 64)
		if err != nil {
			t.Fatalf("metric %q: %v", line, err)
		}
		sum += int64(n)
	}
	return sum
}

func TestMetricsListener(t *testing.T) {
	t.Parallel()
	x := mainService(t)
	for path, want := range map[string]string{
		"/livez": "200 ok\n", "/readyz": "200 ok\n",
		"/": "404 404 page not found\n", "/config": "404 404 page not found\n", "/debug/pprof/": "404 404 page not found\n",
	} {
		if status, _, body := fetch(t, "http://"+x.Metrics+path); fmt.Sprint(status, " ", body) != want {
			t.Errorf("%s: %d %q, want %q", path, status, body, want)
		}
	}
}

// Metrics count by outcome, reason, route and pool, whose values come from the configuration and the table of reasons, and
// by nothing that a caller chooses. Who is not known does not choose a route either.
func TestMetricsHaveNoLabelsOfCallers(t *testing.T) {
	t.Parallel()
	x := newService(t, "observe.yaml", map[string]string{"MAIN": pool(t, mainPool).Issuer()})
	g := newGateway(t, x, patience())
	p := pool(t, mainPool)
	for i := range 30 {
		id := fmt.Sprint("caller", i)
		g.get(t, "/orders/"+id+"?page="+id, "Authorization: Bearer "+p.Token(batchID, cognitotest.Claim("jti", id)), "X-Tenant: "+id)
		g.get(t, "/"+id, "Authorization: Bearer "+p.Token(batchID, cognitotest.Claim("sub", id)))
		g.get(t, "/orders/7", "Authorization: Bearer "+p.Token(id))
		g.get(t, "/orders/7", "Authorization: Bearer "+p.Token(batchID, cognitotest.Claim("iss", "https://"+id+".example.com")))
		g.get(t, "/orders/7", "Authorization: Bearer "+id)
		g.send(t, "GET /healthz HTTP/1.1", "Host: "+id+".example.com")
		g.sendH2(t, h2("CALLER"+strconv.Itoa(i), "/healthz"))
		g.get(t, "/%252e%252e/"+id)
	}
	_, header, body := fetch(t, "http://"+x.Metrics+"/metrics")
	if got := header.Get("Content-Type"); !strings.HasPrefix(got, "text/plain; version=0.0.4") {
		t.Errorf("content-type %q, want Prometheus'", got)
	}
	got := map[string]string{}
	for line := range strings.Lines(body) {
		if name, rest, ok := strings.Cut(line, "{"); ok && name == "extauthz_checks_total" {
			labels, value, _ := strings.Cut(rest, "} ")
			got[labels] = strings.TrimSpace(value)
		}
	}
	want := map[string]string{
		`outcome="allowed",pool="main",reason="allowed",route="GET /orders/{id}"`: "30",
		`outcome="denied",pool="main",reason="no_route",route=""`:                 "30",
		`outcome="denied",pool="",reason="client_not_allowed",route=""`:           "30",
		`outcome="refused",pool="",reason="issuer",route=""`:                      "30",
		`outcome="refused",pool="",reason="malformed",route=""`:                   "30",
		`outcome="allowed",pool="",reason="allowed",route="GET /healthz"`:         "30",
		`outcome="refused",pool="",reason="missing_token",route=""`:               "30",
		`outcome="refused",pool="",reason="invalid_path",route=""`:                "30",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("extauthz_checks_total: -want +got:\n%s", diff)
	}
	if found := regexp.MustCompile(`(?i).*(caller|eyJ|` + batchID + `).*`).FindString(body); found != "" {
		t.Errorf("/metrics has %q, want nothing of the requests", found)
	}
	if n := strings.Count(body, "\nextauthz_"); n > 100 {
		t.Errorf("/metrics has %d lines of extauthz, want at most 100", n)
	}
}

// A word that stands for a secret is sent in every place where a request can have one. It comes out nowhere.
func TestNothingSecretIsWrittenDown(t *testing.T) {
	t.Parallel()
	const canary = "canary7secret"
	x := newService(t, "observe.yaml", map[string]string{"MAIN": pool(t, mainPool).Issuer()})
	g := newGateway(t, x, patience())
	p := pool(t, mainPool)
	token := p.Token(batchID, cognitotest.Claim("custom:tier", "gold"), cognitotest.Claim("custom:secret", canary))
	secrets := []string{
		"X-Secret: " + canary, "Cookie: session=" + canary, "Proxy-Authorization: Basic " + canary, "X-Api-Key: " + canary, "User-Agent: " + canary,
		"Referer: https://a.example/?" + canary, "X-Forwarded-For: " + canary, "X-Request-Id: " + canary, "Tracestate: a=" + canary, "Baggage: a=" + canary,
		"X-Auth-Client-Id: " + canary, "X-Auth-" + canary + ": 1",
	}
	send := func(target, authorization string, more ...string) answer {
		return g.get(t, target, slices.Concat([]string{"Authorization: " + authorization}, secrets, more)...)
	}
	a := send("/orders/7?page=2&key="+canary, "Bearer "+token, "X-Tenant: t1")
	if diff := cmp.Diff(reaches("/orders/7?page=2&key="+canary), a.outcome()); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	id, _ := g.logged(t, a)["decision_id"].(string)
	line := x.decision(t, id)
	got := map[string]any{}
	maps.Copy(got, line)
	maps.DeleteFunc(got, func(name string, _ any) bool { return !strings.Contains(name, ".") })
	if diff := cmp.Diff(map[string]any{"headers.x-tenant": "t1", "query.page": "2", "claims.custom:tier": "gold"}, got); diff != "" {
		t.Errorf("decisionLog.include: -want +got:\n%s", diff)
	}
	send("/orders/7", "Bearer "+canary)
	send("/orders/7", "Basic "+canary)
	send("/orders/7", canary)
	send("/orders/7", "Bearer "+canary+" "+canary)
	send("/orders/7", "Bearer "+token+canary)
	send("/orders/7", "Bearer "+p.SignBytes(nil, []byte(`{"`+canary+`":`)))
	send("/orders/7", "Bearer "+p.Token(batchID, cognitotest.Claim("scope", `"`+canary)))
	send("/orders/7", "Bearer "+p.Token(batchID, cognitotest.Claim("exp", canary)))
	send("/orders/7", "Bearer "+p.Token(batchID, cognitotest.Claim("aud", []any{canary, 7})))
	send("/orders/7", "Bearer "+p.Token(batchID, cognitotest.Claim("username", canary), cognitotest.Claim("custom:x", canary)))
	send("/orders/7?access_token="+canary+"&%zz", "Bearer "+token)
	send("/orders/"+canary+"%00", "Bearer "+token)
	send("/%252e%252e/"+canary, "Bearer "+token)
	send("/healthz?token="+canary, "Bearer "+canary)
	g.send(t, "GET /orders/7 HTTP/1.1", "Host: user:"+canary+"@api.example.com")
	g.send(t, "GET /orders/7 HTTP/1.1", host, "Content-Type: "+canary, "Content-Length: "+strconv.Itoa(len(canary)), "", canary)

	_, _, metrics := fetch(t, "http://"+x.Metrics+"/metrics")
	_, _, config := fetch(t, "http://"+x.admin+"/config")
	for where, text := range map[string]string{
		"extauthz's log": x.Stderr(), "extauthz's output": x.Stdout(), "the metrics": metrics, "the effective configuration": config,
	} {
		for _, secret := range []string{canary, "eyJ"} {
			if i := strings.Index(strings.ToLower(text), strings.ToLower(secret)); i >= 0 && (secret == canary || strings.Contains(text, secret)) {
				t.Errorf("%s has %q: …%s…", where, secret, text[max(0, i-300):min(len(text), i+100)])
			}
		}
	}
}

// Of a token that is not verified, the log quotes what tells an operator who has a problem, and nothing else, since
// anybody can write anything there (docs/operating.md).
func TestLogQuotesIssuerAndClientOfUnverifiedTokens(t *testing.T) {
	t.Parallel()
	g, x, p := shipped(t), mainService(t), pool(t, mainPool)
	tests := []struct {
		name   string
		token  string
		quoted bool
	}{
		{"iss", p.Token(batchID, cognitotest.Claim("iss", "https://quote-iss")), true},
		{"client_id", p.Token("quote-client_id"), true},
		{"alg", p.Token(batchID, cognitotest.HeaderParam("alg", "quote-alg")), false},
		{"kid", p.Token(batchID, cognitotest.HeaderParam("kid", "quote-kid")), false},
		{"typ", p.Token(batchID, cognitotest.HeaderParam("typ", "quote-typ")), false},
		{"token_use", p.Token(batchID, cognitotest.Claim("token_use", "quote-token_use")), false},
		{"exp", p.Token(batchID, cognitotest.Claim("exp", "quote-exp")), false},
		{"scope", p.Token(batchID, cognitotest.Claim("scope", `"quote-scope`)), false},
		{"a name", p.Token(batchID, cognitotest.WithoutClaim("exp"), cognitotest.Claim("quote-a name", "1")), false},
	}
	for _, tt := range tests {
		a := g.get(t, "/orders/7", "Authorization: Bearer "+tt.token)
		if a.status < 400 {
			t.Fatalf("%s: got %+v, want no allow", tt.name, a.outcome())
		}
		line, err := json.Marshal(x.decision(t, a.problem().DecisionID))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(line), "quote-"+tt.name); got != tt.quoted {
			t.Errorf("%s: quoted is %t, want %t, in %s", tt.name, got, tt.quoted, line)
		}
	}
}

// A collector takes OTLP over HTTP and keeps the spans.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*tracev1.Span
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/v1/traces" {
			return // metrics come too
		}
		var request coltrace.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &request); err != nil {
			t.Errorf("OTLP: %v", err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, resource := range request.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				c.spans = append(c.spans, scope.GetSpans()...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) all() []*tracev1.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// The span of a check belongs to the trace of its request, if the request says that it is traced.
func TestTracesJoinTheRequests(t *testing.T) {
	t.Parallel()
	c := startCollector(t)
	x := newService(t, "observe.yaml", map[string]string{"MAIN": pool(t, mainPool).Issuer()},
		"OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_BSP_SCHEDULE_DELAY=50")
	g := newGateway(t, x, patience())
	token := bearer(t, batchID)
	const traced, untraced = "4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000abc"
	g.get(t, "/orders/7", token, "Traceparent: 00-"+untraced+"-00f067aa0ba902b7-00")
	g.get(t, "/orders/7", token) // none of its own
	g.get(t, "/orders/7", token, "Traceparent: junk")
	a := g.get(t, "/orders/7?secret=canary", "Authorization: Bearer junk", "Traceparent: 00-"+traced+"-00f067aa0ba902b7-01", "X-Secret: canary")
	if diff := cmp.Diff(refused("malformed", notAccepted), a.outcome()); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	eventually(t, func() error {
		if n := len(c.all()); n != 1 {
			return fmt.Errorf("%d spans, want one", n)
		}
		return nil
	})
	span := c.all()[0]
	got := map[string]string{
		"trace": fmt.Sprintf("%x", span.GetTraceId()), "parent": fmt.Sprintf("%x", span.GetParentSpanId()), "name": span.GetName(), "kind": span.GetKind().String(),
	}
	for _, attribute := range span.GetAttributes() {
		got[attribute.GetKey()] = attribute.GetValue().GetStringValue()
	}
	if diff := cmp.Diff(map[string]string{
		"trace": traced, "parent": "00f067aa0ba902b7", "name": "check", "kind": "SPAN_KIND_SERVER",
		"extauthz.outcome": "refused", "extauthz.reason": "malformed", "extauthz.route": "GET /orders/{id}", "extauthz.pool": "",
		"extauthz.decision_id": a.problem().DecisionID,
	}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if line := x.decision(t, a.problem().DecisionID); line["trace_id"] != traced {
		t.Errorf("extauthz's log has trace_id %v, want %s", line["trace_id"], traced)
	}
	if text, err := json.Marshal(span); err != nil || strings.Contains(string(text), "canary") {
		t.Errorf("the span is %s, %v, want nothing of the query and the headers", text, err)
	}
}

// Without an OTEL_ variable nothing is sent anywhere, also not to where OTLP would go by default.
func TestNothingIsSentUnasked(t *testing.T) {
	t.Parallel()
	var accepting sync.WaitGroup
	t.Cleanup(accepting.Wait)
	connections := make(chan string, 16)
	for _, address := range []string{"127.0.0.1:4317", "127.0.0.1:4318"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			lab.Skip(t, "somebody else listens there: ", err)
		}
		accepting.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				connections <- address
				conn.Close()
			}
		})
		t.Cleanup(func() { l.Close() })
	}
	x := newService(t, "observe.yaml", map[string]string{"MAIN": pool(t, mainPool).Issuer()})
	g := newGateway(t, x, patience())
	g.get(t, "/orders/7", bearer(t, batchID), "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	if err := x.Stop(t.Context()); err != nil { // which would send what is left
		t.Error(err)
	}
	select {
	case address := <-connections:
		t.Errorf("a connection to %s, want none", address)
	default:
	}
}
