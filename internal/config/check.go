package config

import (
	"fmt"
	"slices"
	"strings"
)

// check reports what each value by itself does not show: values that exclude, need or contradict each other, names
// that nothing has. A key that has a problem already is left alone, and so is what follows from it.
func (d *decoder) check(c *Config) {
	d.listen(c)
	for _, name := range sortedKeys(c.Pools) {
		d.pool(c, name)
	}
	d.distinctIssuers(c)
	d.dialect(c)
	d.routes(c)
	d.identityHeaders(c)
	d.policy(c)
	d.decisionLog(c)
	d.limits(c)
}

// problem reports a problem of a key at its place, or at that of what it belongs to if it was not given.
func (d *decoder) problem(key, message, hint string) {
	nearest := key
	for k := key; k != ""; k = parent(k) {
		if d.bad[k] {
			return
		}
		if _, given := d.places[nearest]; !given {
			nearest = parent(k)
		}
	}
	d.report(d.places[nearest], key, message, hint)
}

// given reports whether a key was given, well or badly.
func (d *decoder) given(key string) bool {
	_, given := d.places[key]
	return given || d.bad[key]
}

// serviceReasons are the reasons of this program itself. A policy that used one of them would make logs and
// metrics say something that is not so. Those that a policy may use need not be listed.
var (
	serviceReasons = []string{
		"allowed", "missing_token", "invalid_request", "invalid_path", "malformed", "algorithm", "unknown_key", "signature",
		"issuer", "expired", "not_yet_valid", "token_use", "claims", "audience", "scope_claim", "not_a_machine", "revoked",
		"keys_unavailable", "policy_error", "policy_undefined", "policy_timeout", "overloaded", "panic",
	}
	policyReasons = []string{"insufficient_scope", "client_not_allowed", "policy_denied", "no_route"}
)

// dialect reports what does not go with the policy's dialect, and fills in what depends on it.
func (d *decoder) dialect(c *Config) {
	p := &c.Policy
	if d.bad["policy.dialect"] {
		return
	}
	if p.Dialect == DialectOPAEnvoy {
		if !d.given("policy.decision") {
			p.Decision = DefaultDecisionOPAEnvoy
		}
		if p.Dir == "" && !c.HasBundles() && !d.bad["policy.dir"] {
			d.problem("policy.dir", "missing, want the directory with your policies, as dialect: opa-envoy is for those", "")
		}
		return
	}
	for _, missing := range d.missing {
		missing()
	}
	const own = " without policy.dialect: opa-envoy"
	if c.Authentication == Optional {
		d.problem("authentication", "found optional"+own+", want required", "to let requests to one route through without a token, write public: true in it")
	}
	if p.ExtauthzInput {
		d.problem("policy.extauthzInput", "found true"+own+", want it with that dialect, as in ours input has all of it", "delete it")
	}
}

func (d *decoder) policy(c *Config) {
	const builtin = "data.extauthz.base.decision" // what the default decision is made of
	p := c.Policy
	d.policySource(c)
	if p.Dialect == DialectExtauthz && p.Dir == "" && !c.HasBundles() && p.Decision != DefaultDecision && p.Decision != builtin && !d.bad["policy.dir"] {
		d.problem("policy.decision", fmt.Sprintf("found %s without policy.dir, want %s, as the built-in policy has no other rule", p.Decision, DefaultDecision),
			"name the directory with your policies in policy.dir")
	}
	for i, reason := range p.Reasons {
		switch key := itemOf("policy.reasons", i); {
		case slices.Contains(serviceReasons, reason):
			d.problem(key, fmt.Sprintf("found %s, want another word, as this one is a reason of the service itself", reason), "")
		case slices.Contains(policyReasons, reason):
			d.problem(key, fmt.Sprintf("found %s, want only reasons of your own, as every policy may use this one", reason), "delete it")
		}
	}
	prefix := folded(c.IdentityHeaders.Prefix)
	for i, name := range p.RequestHeaders {
		switch key := itemOf("policy.requestHeaders", i); {
		case name == "":
		case strings.HasPrefix(folded(name), prefix) && !d.bad["identityHeaders.prefix"]:
			d.problem(key, fmt.Sprintf("found %s, want a header that does not begin with %s, as these say who is calling", name, c.IdentityHeaders.Prefix), "")
		case untouchable(folded(name)):
			d.problem(key, fmt.Sprintf("found %s, want a header that does not steer the connection or the routing", name), "delete it")
		}
	}
}

// policySource reports two sources of policies, and what is said of one that is not there.
func (d *decoder) policySource(c *Config) {
	switch {
	case c.HasBundles() && c.Policy.Dir != "":
		d.problem("policy.dir", fmt.Sprintf("found %s beside bundles of opa, want one source of policies", quote(c.Policy.Dir)), "delete one of the two")
	case !c.HasBundles() && c.Policy.MinRevision != "":
		d.problem("policy.minRevision", fmt.Sprintf("found %s without bundles in opa, want it with them, as only bundles have such a revision", quote(c.Policy.MinRevision)), "")
	}
}

// untouchable reports whether a header is not for a policy, nor for identity: what HTTP itself needs (RFC 9110
// section 7.6.1 for the hop-by-hop ones).
func untouchable(name string) bool {
	return slices.Contains([]string{
		"host", "content-length", "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
	}, name)
}

// folded returns a header name as servers see it that do not tell '-' from '_' and the like, and upper from lower case.
func folded(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
}

// others are headers, and with "-" at the end beginnings of headers, that have a meaning to Envoy, HTTP or tracing.
// With a prefix that one of them begins with, it would be taken for a forged identity header.
var others = []string{
	"accept-", "access-control-", "alt-", "cache-control", "content-", "cross-origin-", "grpc-", "idempotency-key", "if-",
	"last-event-id", "max-forwards", "proxy-", "sec-", "set-cookie", "transfer-encoding", "upgrade-insecure-requests",
	"user-agent", "x-amz-", "x-amzn-", "x-b3-", "x-client-trace-id", "x-cloud-trace-context", "x-correlation-id", "x-envoy-",
	"x-forwarded-", "x-http-method-override", "x-istio-", "x-original-", "x-ot-span-context", "x-real-ip", "x-request-id",
	"x-requested-with",
}

func (d *decoder) identityHeaders(c *Config) {
	h := c.IdentityHeaders
	for _, other := range others {
		family := strings.HasSuffix(other, "-") && strings.HasPrefix(h.Prefix, other)
		if !family && !strings.HasPrefix(other, h.Prefix) {
			continue
		}
		example := other
		if strings.HasSuffix(other, "-") {
			example += "…"
		}
		d.problem("identityHeaders.prefix", fmt.Sprintf("found %s, want a prefix that no other header begins with, as all that do are removed (%s)", quote(h.Prefix), example), "")
		break
	}
	for _, suffix := range sortedKeys(h.Claims) {
		key := join("identityHeaders.claims", suffix)
		rest, whole := strings.CutPrefix(suffix, h.Prefix)
		switch name := h.Prefix + suffix; {
		case whole:
			d.problem(key, fmt.Sprintf("found %s, want only what follows the prefix %s", suffix, h.Prefix), "write "+rest)
		case slices.Contains(builtinSuffixes, suffix):
			d.problem(key, fmt.Sprintf("found %s, want another name, as %s is always set from the verified token", suffix, name), "")
		}
	}
}

// credentials are the fields of a request that hold secrets, and so never go into a log.
var credentials = []string{
	"headers.authorization", "headers.proxy-authorization", "headers.cookie", "headers.set-cookie", "query.access_token",
}

func (d *decoder) decisionLog(c *Config) {
	for i, name := range c.DecisionLog.Include {
		key := itemOf("decisionLog.include", i)
		header, isHeader := strings.CutPrefix(name, "headers.")
		if isHeader { // a header's case means nothing
			c.DecisionLog.Include[i] = strings.ToLower(name)
		}
		switch {
		case slices.Contains(credentials, strings.ToLower(name)):
			d.problem(key, fmt.Sprintf("found %s, want a field that holds no credentials", name), "claims.NAME logs a part of the verified token")
		case isHeader && !isValid("header", header):
			d.problem(key, fmt.Sprintf("found %s, want a header name after headers.", quote(name)), "")
		}
	}
	d.decisionLogTo(c)
	d.sampled(c.DecisionLog)
}

// decisionLogTo reports a place without what it needs, and what is said of a place that is not chosen.
func (d *decoder) decisionLogTo(c *Config) {
	switch l := c.DecisionLog; {
	case d.bad["decisionLog.to"]:
	case l.To == LogToFile && l.File.Path == "":
		d.problem("decisionLog.file.path", "found no path with to: file, want the path of a file", "")
	case l.To != LogToFile && l.File.Path != "":
		d.problem("decisionLog.to", fmt.Sprintf("found %s with a file, want file", l.To), "delete decisionLog.file, or write to: file")
	case l.To == LogToOPA && c.OPA["decision_logs"] == nil && c.OPA["discovery"] == nil:
		d.problem("decisionLog.to", "found opa without decision_logs in the section opa, want it to say where they go", "")
	}
}

// sampled reports shares that are said for nothing.
func (d *decoder) sampled(l DecisionLog) {
	for _, o := range l.outcomes() {
		switch key := "decisionLog.sampleRatios." + o.name; {
		case d.bad["decisionLog."+o.name]:
		case o.which == LogSampled && o.ratio == 0 && l.SampleRatio == 0:
			d.problem("decisionLog.sampleRatio", fmt.Sprintf("found 0 with %s: sampled, want more than 0", o.name),
				fmt.Sprintf("to log no %s checks, write %s: none", o.name, o.name))
		case o.which != LogSampled && o.ratio != 0:
			d.problem(key, fmt.Sprintf("found %v with %s: %s, want it with sampled", o.ratio, o.name, o.which), "write "+o.name+": sampled")
		}
	}
}

func (d *decoder) limits(c *Config) {
	const all = "limits.headerBytes"
	for _, part := range []struct {
		key   string
		bytes int
	}{{"limits.pathBytes", c.Limits.PathBytes}, {"limits.tokenBytes", c.Limits.TokenBytes}} {
		if part.bytes <= c.Limits.HeaderBytes {
			continue
		}
		if d.given(part.key) {
			d.problem(part.key, fmt.Sprintf("found %d, want at most headerBytes (%d), which it is a part of", part.bytes, c.Limits.HeaderBytes), "")
			continue
		}
		d.problem(all, fmt.Sprintf("found %d, want at least %s (%d), which is a part of it", c.Limits.HeaderBytes, part.key, part.bytes), "")
	}
}
