// Package config reads extauthz's configuration: one YAML file, and environment variables over it.
//
// [Load] is the one call that most need. It is strict: a key that does not exist, a value of the wrong type and a
// value that cannot work are problems, and all of them come back at once in an [*Error], each with its place in
// the file, what was found, what would be valid and, where one is likely, a remedy.
//
// The types below are the whole vocabulary of the file. Their comments are its manual: docs/config.md and
// docs/extauthz.schema.json are generated from them, so they speak to whoever writes the YAML. The field tags are
// for the decoder, the schema and the manual alike:
//
//	yaml      the key
//	default   the value of a key that is not there, as the file would write it
//	required  the key must be there; "dialect": unless the policy's dialect does without it
//	enum      the only values, separated by |
//	format    a name in formats; of each item for a list, of each value for a mapping
//	keys      a name in formats, for the keys of a mapping
//	min, max  bounds of a number or a duration; min is also the least length of a list or mapping
//	empty     "" is a value of its own, and this is what it means
//	example   a value as the file would write it, where the format has none
//	secret    never quoted in a message nor rendered; "unless valid": rendered, as what is valid is no secret
package config

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// MaxFileBytes is the longest file that is read. A thousand routes are about 100 KiB.
const MaxFileBytes = 4 << 20

// A Config is what [Load] accepted, with every default filled in. Nothing in it needs checking again, but for what
// the file alone cannot tell: whether the files it names exist and are good, and whether addresses are free.
// It is not changed after Load, so it is safe for concurrent use.
type Config struct {
	// Where the service listens.
	Listen Listen `yaml:"listen"`
	// A name for each app client. The names are used in pools and routes, in logs and in the client name header.
	Clients map[string]Client `yaml:"clients" keys:"name" example:"orders-batch: {id: 7a8b9c0d1e2f3g4h5i6j7k8}"`
	// The Amazon Cognito user pools whose tokens are accepted, each under a name of your choice.
	Pools map[string]Pool `yaml:"pools" keys:"name" required:"true" min:"1" example:"main: {region: eu-west-1, userPoolId: eu-west-1_AbCdEfGhI, clients: [orders-batch]}"`
	// Who may call what. The most specific route that matches decides, wherever it stands in the list; a request
	// that matches none is denied (`no_route`). Two routes that are equally specific are an error. Required, but with
	// `policy.dialect: opa-envoy`: the policy is then asked about every request, and a route tells it more, or is public.
	Routes []Route `yaml:"routes" required:"dialect" min:"1" example:"- {methods: [GET], path: /orders, scopes: {any: [orders/read]}}"`
	// Whether a request needs a token. `optional` lets one without a token reach the policy, which has to deny it: there is
	// no verified caller then. A token that is there is verified all the same. It goes with `policy.dialect: opa-envoy`
	// only, and is said in the log at each start; elsewhere, a route is `public`.
	Authentication string `yaml:"authentication" default:"required" enum:"required|optional"`
	// The Rego policy that decides, after the token was verified and the route found. Without this section the
	// built-in policy decides: it allows what the matching route says.
	Policy Policy `yaml:"policy"`
	// Where policies come from over the network, and where their decisions are reported to, in OPA's own configuration
	// format: `services`, `bundles`, `discovery`, `keys`, `status`, `decision_logs`, `labels`, `persistence_directory`, …
	// (docs/policy-sources.md). `${NAME}` in a value is replaced by that environment variable, so that no secret has to
	// be in the file. Relative paths are relative to the working directory. What it holds is never shown.
	OPA Opaque `yaml:"opa"`
	// Tokens that are refused although nothing is wrong with them, such as those of a client whose secret has leaked.
	Denylist Denylist `yaml:"denylist"`
	// Verified tokens are remembered until they expire, so that each costs one signature check. Whatever can change
	// meanwhile is checked anew for each request: keys, times, the denylist.
	TokenCache TokenCache `yaml:"tokenCache"`
	// Decisions of the policy are remembered by all that the policy reads, if they depend on nothing else
	// (docs/policy.md). `extauthz policy cache` tells by what, or why not.
	DecisionCache DecisionCache `yaml:"decisionCache"`
	// Headers that tell the upstream service who is calling. Each of them is set or removed on every allowed
	// request, so a caller cannot forge one.
	IdentityHeaders IdentityHeaders `yaml:"identityHeaders"`
	// What the upstream service gets to see of the request's credentials.
	Upstream Upstream `yaml:"upstream"`
	// Bounds on what one request, or all of them together, may cost. A request beyond a size is answered with 400,
	// a check beyond `concurrentChecks` with 503.
	Limits Limits `yaml:"limits"`
	// Which decisions are logged, where, and with what (docs/decision-log.md). What is logged besides is the service's own
	// log, on standard error.
	DecisionLog DecisionLog `yaml:"decisionLog"`
	// The realm of the WWW-Authenticate challenge (RFC 6750 section 3).
	Realm string `yaml:"realm" default:"extauthz" format:"realm"`
	// When the service calls itself ready.
	Startup Startup `yaml:"startup"`
	// How the service ends, so that no request is lost in a rollout.
	Shutdown Shutdown `yaml:"shutdown"`
	// The service's own log.
	Log Log `yaml:"log"`
	// Traces. Where they are sent is said by OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT.
	Telemetry Telemetry `yaml:"telemetry"`

	dir     string            // directory of the file, for Path
	sources map[string]string // key to the environment variable that set it
}

// Listen says where the service listens. An address is `host:port`; the host is an IP address or `localhost`, and
// without one, as in `:9191`, it means all interfaces. Port 0 lets the system choose a free one, for tests.
type Listen struct {
	// Where Envoy reaches the ext_authz service over gRPC: `host:port`, or `unix:///absolute/path` for a Unix
	// socket. The default is for an Envoy on the same host or in the same pod. Whoever reaches this address can
	// ask for decisions, so open it to Envoy only, or use `tls` with `clientCAFile`.
	GRPC string `yaml:"grpc" default:"127.0.0.1:9191" format:"address"`
	// Where /livez, /readyz and /metrics are served over HTTP, and nothing else.
	Metrics string `yaml:"metrics" default:"0.0.0.0:9192" format:"address" empty:"switches the listener off"`
	// Where the effective configuration and profiles are served over HTTP. Must be a loopback address. Reach it with `kubectl port-forward` or ssh.
	Admin string `yaml:"admin" default:"127.0.0.1:9193" format:"address" empty:"switches the listener off"`
	// TLS for the gRPC listener. Without this section it speaks plain HTTP/2.
	TLS TLS `yaml:"tls"`
}

// TLS names the files of a TLS server. All are PEM files. A relative path is relative to the configuration file.
type TLS struct {
	// The server's certificate, followed by its intermediates.
	CertFile string `yaml:"certFile" format:"path"`
	// The certificate's private key.
	KeyFile string `yaml:"keyFile" format:"path"`
	// Certificate authorities. If set, Envoy must present a client certificate that one of them issued.
	ClientCAFile string `yaml:"clientCAFile" format:"path"`
}

// Enabled reports whether the gRPC listener speaks TLS.
func (t TLS) Enabled() bool { return t.CertFile != "" }

// A Client is a Cognito app client.
type Client struct {
	// The app client's id, as Cognito shows it. It is an identifier and no secret.
	ID string `yaml:"id" required:"true" format:"clientID"`
}

// The values of [Pool.IssuerType].
const (
	IssuerOriginal = "original"
	IssuerUpdated  = "updated"
	IssuerBoth     = "both"
)

// The values of [Pool.TokenUse].
const (
	TokenUseAccess = "access"
	TokenUseID     = "id"
)

// The values of [Pool.ScopeMatch].
const (
	MatchAll = "all"
	MatchAny = "any"
)

// A Pool is a Cognito user pool. A pool is identified by `region` and `userPoolId`, or by `issuer`. Which clients get in is
// always said: `clients`, or `anyClient: true`.
type Pool struct {
	// The pool's AWS Region, such as `eu-west-1`.
	Region string `yaml:"region" format:"region"`
	// The pool's id, such as `eu-west-1_AbCdEfGhI`.
	UserPoolID string `yaml:"userPoolId" format:"userPoolID"`
	// Which `iss` the pool's tokens have: `original` (https://cognito-idp.REGION.amazonaws.com/ID), `updated`
	// (https://issuer-cognito-idp.REGION.amazonaws.com/ID, needed for multi-Region replication), or `both` while
	// you change from one to the other. Goes with `region` and `userPoolId`.
	IssuerType string `yaml:"issuerType" default:"original" enum:"original|updated|both"`
	// The exact `iss` of the pool's tokens, instead of `region` and `userPoolId`: for other AWS partitions (China,
	// European Sovereign Cloud), replicas in a second Region, mirrors and stand-ins. https, or http on a loopback
	// host.
	Issuer string `yaml:"issuer" format:"url"`
	// Where the pool's public keys (JWK Set) are fetched. Default: `/.well-known/jwks.json` under the issuer, of
	// the original form if there are both. https, or http on a loopback host.
	JWKSURL string `yaml:"jwksUrl" format:"url"`
	// A JWK Set in a file, instead of fetching one: for hosts without a way out. It is read again when it changes;
	// rotated keys are yours to bring. A relative path is relative to the configuration file.
	JWKSFile string `yaml:"jwksFile" format:"path"`
	// The app clients whose tokens are accepted, by their names in `clients`. With `anyClient: true` the list only
	// gives names to those it has.
	Clients []string `yaml:"clients" format:"name"`
	// `true` accepts the tokens of every app client of the pool, those that somebody will create tomorrow included.
	AnyClient bool `yaml:"anyClient"`
	// The accepted kinds of token: `access`, `id` or both. An API wants access tokens; the client credentials
	// grant yields no other.
	TokenUse []string `yaml:"tokenUse" default:"access" enum:"access|id" min:"1"`
	// If set, the `aud` of an access token must have one of these values. Cognito puts `aud` into access tokens
	// only with resource binding, so by default it is not looked for. (The `aud` of an ID token is its client.)
	Audience []string `yaml:"audience" format:"audience"`
	// Scopes that every token of the pool must have, in full: `resource-server-identifier/scope-name`.
	RequiredScopes []string `yaml:"requiredScopes" format:"scope"`
	// Whether a token needs `all` of `requiredScopes` or `any` one of them.
	ScopeMatch string `yaml:"scopeMatch" default:"all" enum:"all|any"`
	// `true` refuses tokens that were issued for a person and not for an app client (client credentials grant).
	MachinesOnly bool `yaml:"machinesOnly" default:"false"`
	// Clock skew that is forgiven where a token looks not yet valid (`nbf`, or `iat` in the future).
	Leeway time.Duration `yaml:"leeway" default:"30s" min:"0s" max:"5m"`
	// Clock skew that is forgiven where a token has expired (`exp`).
	ExpLeeway time.Duration `yaml:"expLeeway" default:"0s" min:"0s" max:"5m"`
	// How the pool's keys are fetched and kept.
	JWKS JWKS `yaml:"jwks"`
}

// Issuers returns the iss values of the pool's tokens, the original one first.
//
// Source: Amazon Cognito API Reference, IssuerConfigurationType.
func (p Pool) Issuers() []string {
	if p.Issuer != "" {
		return []string{p.Issuer}
	}
	original := "https://cognito-idp." + p.Region + ".amazonaws.com/" + p.UserPoolID
	updated := "https://issuer-cognito-idp." + p.Region + ".amazonaws.com/" + p.UserPoolID
	switch p.IssuerType {
	case IssuerUpdated:
		return []string{updated}
	case IssuerBoth:
		return []string{original, updated}
	}
	return []string{original}
}

// KeysURL returns where the pool's JWK Set is fetched, and "" if it comes from [Pool.JWKSFile].
func (p Pool) KeysURL() string {
	switch {
	case p.JWKSFile != "":
		return ""
	case p.JWKSURL != "":
		return p.JWKSURL
	}
	return p.Issuers()[0] + "/.well-known/jwks.json"
}

// JWKS says how a JWK Set is fetched and kept.
type JWKS struct {
	// The least time between two fetches, however many unknown key ids arrive.
	MinInterval time.Duration `yaml:"minInterval" default:"10s" min:"100ms" max:"1h"`
	// The set is fetched again when it is this old. A key that was removed at Cognito stops working by then.
	MaxAge time.Duration `yaml:"maxAge" default:"1h" min:"1s" max:"24h"`
	// How long the last good set serves while fetches fail. After that the pool's requests get 503.
	MaxStale time.Duration `yaml:"maxStale" default:"24h" min:"1s" max:"720h"`
	// The time for one fetch.
	Timeout time.Duration `yaml:"timeout" default:"5s" min:"100ms" max:"1m"`
	// Certificate authorities (PEM) for the fetch, instead of the system's: for mirrors and TLS-inspecting proxies.
	CAFile string `yaml:"caFile" format:"path"`
	// A JWK Set in a file, to begin with: it serves until the first fetch works, so that a start needs no network. It is
	// read with the configuration only. A relative path is relative to the configuration file.
	SeedFile string `yaml:"seedFile" format:"path"`
}

// Denylist names the file with the revoked clients, tokens and subjects.
type Denylist struct {
	// The file, as docs/denylist.md describes it. It is read again when it changes, within seconds; while it cannot be
	// read or has a mistake, the last good one stays in force. A relative path is relative to the configuration file.
	File string `yaml:"file" format:"path"`
}

// TokenCache bounds the memory of verified tokens.
type TokenCache struct {
	// Whether tokens are remembered at all. Answers are the same either way.
	Enabled bool `yaml:"enabled" default:"true"`
	// How much memory verified tokens may take, in bytes. One of the client credentials grant takes about 1,900.
	MaxBytes int `yaml:"maxBytes" default:"67108864" min:"65536" max:"68719476736"`
	// How many verified tokens there may be.
	MaxEntries int `yaml:"maxEntries" default:"1000000" min:"1" max:"100000000"`
	// How many tokens with a bad signature are remembered, so that who sends one again and again costs little.
	MaxRefusals int `yaml:"maxRefusals" default:"10000" min:"1" max:"10000000"`
}

// DecisionCache bounds the memory of decisions.
type DecisionCache struct {
	// Whether decisions are remembered at all. Answers are the same either way.
	Enabled bool `yaml:"enabled" default:"true"`
	// How much memory decisions may take, in bytes. One takes about 700.
	MaxBytes int `yaml:"maxBytes" default:"16777216" min:"65536" max:"68719476736"`
}

// The values of [Route.EncodedSlash] and [Route.PathParameters].
const (
	Deny  = "deny"
	Allow = "allow"
)

// A Route says who may call some methods of some paths. A route has exactly one kind of access: `scopes`, `clients`,
// both of them (the token then needs both), `anyClient: true` or `public: true`.
type Route struct {
	// A name for logs, metrics and policies. Default: hosts, methods and path, such as `GET /orders/{id}`.
	Name string `yaml:"name" format:"text"`
	// Hosts that the route is for: `api.example.com`, or `*.example.com` for all names below it. Default: any.
	Hosts []string `yaml:"hosts" format:"host"`
	// HTTP methods, compared exactly: GET does not include HEAD. `["*"]` means every method.
	Methods []string `yaml:"methods" required:"true" min:"1" format:"method"`
	// The path: `/orders`, `/orders/{id}` (any one segment), or `/files/**` (`/files` and everything below).
	// `/orders/` is another path than `/orders`.
	Path string `yaml:"path" required:"true" format:"template"`
	// The pools whose tokens are accepted. May be left out while there is only one: with several, another pool
	// could define the same scopes, so each route says which pools it trusts.
	Pools []string `yaml:"pools" format:"name"`
	// The scopes that a token needs.
	Scopes Scopes `yaml:"scopes" example:"{any: [orders/read]}"`
	// The app clients that may call, by their names in `clients`.
	Clients []string `yaml:"clients" format:"name"`
	// `true` lets every client of the route's pools call, whatever its scopes.
	AnyClient bool `yaml:"anyClient"`
	// `true` lets everybody call, without a token. No identity headers are set. Such a route has no other access.
	Public bool `yaml:"public"`
	// Whether a path may hold an encoded slash (`%2F`), for ids that have one. It stays encoded and never separates
	// segments. The default answers 400, as servers disagree about its meaning.
	EncodedSlash string `yaml:"encodedSlash" default:"deny" enum:"deny|allow"`
	// Whether a path may hold path parameters (`;`). The default answers 400, as servers disagree about their
	// meaning.
	PathParameters string `yaml:"pathParameters" default:"deny" enum:"deny|allow"`
}

// Scopes are OAuth 2.0 scopes, in full: `resource-server-identifier/scope-name`. If both lists are there, a token
// must satisfy both.
type Scopes struct {
	// The token must have all of these.
	All []string `yaml:"all" format:"scope"`
	// The token must have one of these.
	Any []string `yaml:"any" format:"scope"`
}

// DefaultDecision is the rule that decides, unless [Policy.Decision] says otherwise.
const DefaultDecision = "data.extauthz.decision"

// DefaultDecisionOPAEnvoy is the rule that decides with [DialectOPAEnvoy], unless [Policy.Decision] says otherwise.
const DefaultDecisionOPAEnvoy = "data.envoy.authz.allow"

// The values of [Policy.Dialect].
const (
	DialectExtauthz = "extauthz"
	DialectOPAEnvoy = "opa-envoy"
)

// The values of [Config.Authentication].
const (
	Required = "required"
	Optional = "optional"
)

// A Policy says which Rego decides, and what it may do.
type Policy struct {
	// A directory with your own policies (`*.rego`, and data in files named `data.json`, `data.yaml` or `data.yml`),
	// read with all below it. A relative path is relative to the configuration file. Default: the built-in policy.
	Dir string `yaml:"dir" format:"path"`
	// The least revision of a bundle (`.manifest`) that is taken, against rollbacks. If it is a whole number, bundles must
	// have one too and numbers are compared; else text is, byte by byte. Goes with bundles in `opa`.
	MinRevision string `yaml:"minRevision" format:"text" example:"\"1700000000\""`
	// What the policy gets to see, and what it answers: `extauthz` (docs/policy.md), or `opa-envoy` for policies that were
	// written for OPA-Envoy and run as they are (docs/from-opa-envoy.md).
	Dialect string `yaml:"dialect" default:"extauthz" enum:"extauthz|opa-envoy"`
	// With `dialect: opa-envoy`, whether the policy also sees the verified token, the route and the canonical path, under
	// `input.extauthz`.
	ExtauthzInput bool `yaml:"extauthzInput" default:"false"`
	// The rule that decides: a package and a rule name after `data.`. With `dialect: opa-envoy` the default is
	// `data.envoy.authz.allow`.
	Decision string `yaml:"decision" default:"data.extauthz.decision" format:"rule"`
	// The time for one decision. A later one is answered with 503.
	Timeout time.Duration `yaml:"timeout" default:"50ms" min:"1ms" max:"10s"`
	// Request headers that a decision may set or remove before the request goes upstream. Identity headers,
	// pseudo headers, host, content-length and hop-by-hop headers cannot be listed. Envoy must be told the same
	// (`decoder_header_mutation_rules`), or each such allow is a 500. One that a decision neither sets nor removes
	// reaches the upstream as the caller sent it.
	RequestHeaders []string `yaml:"requestHeaders" format:"header"`
	// Reasons of your policy that callers, logs and metrics may show. Any other becomes `policy_denied`.
	Reasons []string `yaml:"reasons" format:"reason"`
	// Rego built-in functions to allow, of those that are switched off because they reach out of the process, can
	// hold a CPU for good, or handle tokens, such as `http.send`.
	AllowBuiltins []string `yaml:"allowBuiltins" format:"builtin"`
}

// IdentityHeaders says which headers carry the caller's identity upstream.
type IdentityHeaders struct {
	// What their names begin with. All headers of a request that begin with it, in any spelling, are taken for
	// forged and removed, so choose one that nothing else uses. The rest of a name is one of `client-id`, `client-name`, `scopes`, `pool`, `issuer`,
	// `subject`, `token-id`, or a key of `claims`.
	Prefix string `yaml:"prefix" default:"x-auth-" format:"headerPrefix"`
	// The longest value. A longer one is not sent; the header is removed, and the dynamic metadata has the value.
	MaxBytes int `yaml:"maxBytes" default:"4096" min:"128" max:"65536"`
	// More headers: the rest of the header's name, and the claim of the token that becomes its value, such as
	// `tier: custom:tier` for `x-auth-tier`.
	Claims map[string]string `yaml:"claims" keys:"headerSuffix" format:"claim" example:"tier: custom:tier"`
}

// builtinSuffixes are what the names of the identity headers that every token has end with.
var builtinSuffixes = []string{"client-id", "client-name", "scopes", "pool", "issuer", "subject", "token-id"}

// Names returns the names of all identity headers in lower case: first those that every token has, then those
// of claims, sorted.
func (h IdentityHeaders) Names() []string {
	var names []string
	for _, suffix := range builtinSuffixes {
		names = append(names, h.Prefix+suffix)
	}
	for _, suffix := range sortedKeys(h.Claims) {
		names = append(names, h.Prefix+suffix)
	}
	return names
}

// The values of [Upstream.Authorization].
const (
	Remove  = "remove"
	Forward = "forward"
)

// Upstream says what the upstream service gets to see.
type Upstream struct {
	// `remove` takes the Authorization header, and so the token, out of allowed requests; `forward` leaves it. A
	// token that is forwarded can be used again by whoever reads the upstream's logs. A public route leaves the
	// header alone, whatever this says.
	Authorization string `yaml:"authorization" default:"remove" enum:"remove|forward"`
}

// Limits bound the cost of checks.
type Limits struct {
	// Checks at the same time. One more is answered with 503 at once; it does not wait.
	ConcurrentChecks int `yaml:"concurrentChecks" default:"1024" min:"1" max:"1000000"`
	// The longest path, query included.
	PathBytes int `yaml:"pathBytes" default:"8192" min:"64" max:"1048576"`
	// All request headers together, names and values.
	HeaderBytes int `yaml:"headerBytes" default:"65536" min:"1024" max:"16777216"`
	// The longest body, where Envoy is told to send bodies.
	BodyBytes int `yaml:"bodyBytes" default:"1048576" min:"1024" max:"67108864"`
	// The longest token. Cognito's have one to two KiB.
	TokenBytes int `yaml:"tokenBytes" default:"16384" min:"1024" max:"16384"`
}

// The values of [DecisionLog.Allowed].
const (
	LogNone    = "none"
	LogSampled = "sampled"
	LogAll     = "all"
)

// The values of [DecisionLog.To].
const (
	LogToStderr = "stderr"
	LogToStdout = "stdout"
	LogToFile   = "file"
	LogToOPA    = "opa"
)

// DecisionLog says which decisions are logged, and where.
type DecisionLog struct {
	// Where decisions go: `stderr` and `stdout`, as JSON lines; `file`, the same into a file that is rotated; `opa`, to
	// OPA's decision log plugin, which the section `opa` configures. One that is slow or full holds up no answer: what it
	// does not take is lost, and counted.
	To string `yaml:"to" default:"stderr" enum:"stderr|stdout|file|opa"`
	// The file, with `to: file`.
	File LogFile `yaml:"file"`
	// Which allowed checks are logged: `none` (metrics count them all the same), `sampled` or `all`.
	Allowed string `yaml:"allowed" default:"none" enum:"none|sampled|all"`
	// Which checks that refused a token are logged.
	Refused string `yaml:"refused" default:"all" enum:"none|sampled|all"`
	// Which checks that denied a request are logged.
	Denied string `yaml:"denied" default:"all" enum:"none|sampled|all"`
	// Which failed checks are logged.
	Failed string `yaml:"failed" default:"all" enum:"none|sampled|all"`
	// The share, from 0 to 1, that is logged of an outcome which is `sampled`.
	SampleRatio float64 `yaml:"sampleRatio" default:"0.01" min:"0" max:"1"`
	// The share of one outcome, where it is not to be `sampleRatio`.
	SampleRatios SampleRatios `yaml:"sampleRatios"`
	// What else to log of a request: `headers.NAME`, `query.NAME` or `claims.NAME`. Nothing of the three is
	// logged unless it is named here. Headers that hold credentials cannot be named.
	Include []string `yaml:"include" format:"logField"`
}

// LogFile is a file of decisions.
type LogFile struct {
	// The file. It is made if it is not there, readable for its owner only. A relative path is relative to the
	// configuration file. On SIGHUP it is opened again, for those who rotate it themselves.
	Path string `yaml:"path" format:"path"`
	// How long it may get, in bytes. Then it gets the time into its name, and a new one begins.
	MaxBytes int `yaml:"maxBytes" default:"104857600" min:"1048576" max:"1099511627776"`
	// How many full ones are kept. The oldest is deleted first.
	Keep int `yaml:"keep" default:"5" min:"1" max:"10000"`
}

// SampleRatios are shares by outcome. 0 means that [DecisionLog.SampleRatio] holds.
type SampleRatios struct {
	// Of allowed checks. 0 means `sampleRatio`, here and below.
	Allowed float64 `yaml:"allowed" default:"0" min:"0" max:"1"`
	// Of checks that refused a token.
	Refused float64 `yaml:"refused" default:"0" min:"0" max:"1"`
	// Of checks that denied a request.
	Denied float64 `yaml:"denied" default:"0" min:"0" max:"1"`
	// Of failed checks.
	Failed float64 `yaml:"failed" default:"0" min:"0" max:"1"`
}

// Ratios returns the share of checks that is logged, by outcome.
func (l DecisionLog) Ratios() map[string]float64 {
	ratios := make(map[string]float64)
	for _, o := range l.outcomes() {
		switch o.which {
		case LogAll:
			ratios[o.name] = 1
		case LogSampled:
			ratios[o.name] = cmp.Or(o.ratio, l.SampleRatio)
		default:
			ratios[o.name] = 0
		}
	}
	return ratios
}

type loggedOutcome struct {
	name, which string
	ratio       float64
}

func (l DecisionLog) outcomes() []loggedOutcome {
	r := l.SampleRatios
	return []loggedOutcome{
		{"allowed", l.Allowed, r.Allowed},
		{"refused", l.Refused, r.Refused},
		{"denied", l.Denied, r.Denied},
		{"failed", l.Failed, r.Failed},
	}
}

// Startup says when the service calls itself ready. It is, once it has the keys of every pool, or, after a while, of
// one. Later failures to fetch keys do not change that; they fail the requests of their own pool only.
type Startup struct {
	// How long to wait for the keys of all pools, before those of one are enough.
	KeysTimeout time.Duration `yaml:"keysTimeout" default:"30s" min:"100ms" max:"10m"`
}

// Shutdown says how the service ends after SIGTERM.
type Shutdown struct {
	// How long it goes on as before while its health check says that it is not serving, so that Envoy turns to
	// other replicas first.
	Delay time.Duration `yaml:"delay" default:"5s" min:"0s" max:"5m"`
	// After the delay, how long checks that have begun may take to finish. Kubernetes' terminationGracePeriodSeconds
	// must be longer than both together.
	Timeout time.Duration `yaml:"timeout" default:"20s" min:"100ms" max:"10m"`
}

// Log is about the service's own log.
type Log struct {
	// The least severe lines that are written.
	Level string `yaml:"level" default:"info" enum:"debug|info|warn|error"`
}

// SlogLevel returns Level as log/slog has it; the zero value means info, as the default does.
func (l Log) SlogLevel() slog.Level {
	var level slog.Level
	// The four words are slog's own, so the only text that fails is the zero value.
	_ = level.UnmarshalText([]byte(l.Level))
	return level
}

// Telemetry is about traces.
type Telemetry struct {
	// How many traces a second to record because the caller asked for them (`traceparent` with the sampled flag).
	// A caller cannot make the service record more.
	TraceRate float64 `yaml:"traceRate" default:"10" min:"0" max:"100000"`
	// The share, from 0 to 1, of requests without a trace flag that is recorded.
	TraceRatio float64 `yaml:"traceRatio" default:"0" min:"0" max:"1"`
}

// Load reads and checks the file at path, with environ (in the form of [os.Environ]) over it. An error is an
// [*Error] with every problem of file and environment, unless the file cannot be read at all.
func Load(path string, environ []string) (*Config, error) {
	data, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return Parse(path, data, environ)
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a directory, want a YAML file", path)
	}
	// One byte more than is allowed tells Parse that there is more.
	return io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
}

// Parse is [Load] for a file that has been read. Its name goes into messages, and its directory is what relative
// paths are relative to. Every error is an [*Error].
func Parse(file string, data []byte, environ []string) (*Config, error) {
	c := &Config{dir: filepath.Dir(file)}
	d := newDecoder(file)
	root := d.syntax(data)
	if root != nil {
		d.decode(root, c)
	}
	d.environment(environ, c)
	if root != nil {
		d.check(c)
	}
	if len(d.problems) > 0 {
		return nil, d.error()
	}
	c.sources = d.variables()
	return c, nil
}

// Path returns a path of the configuration as the process can open it: a relative one is joined to the directory
// of the configuration file. Paths are kept as they were written, so that [Config.Revision] does not depend on
// where a replica has its files.
func (c *Config) Path(written string) string {
	if written == "" || filepath.IsAbs(written) {
		return written
	}
	return filepath.Join(c.dir, written)
}

// UnixSocket returns the path of the Unix socket that an address of [Listen] names, if it does.
func UnixSocket(address string) (path string, ok bool) {
	return strings.CutPrefix(address, unixScheme)
}
