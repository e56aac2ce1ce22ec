package policy

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/ast"
)

// A Dialect is what input and decision look like to a policy.
type Dialect string

// The dialects.
const (
	// DialectExtauthz is the one that [Input] and [Decision] describe.
	DialectExtauthz Dialect = "extauthz"
	// DialectOPAEnvoy runs policies that were written for OPA-Envoy as they are. The input has exactly the keys of that
	// plugin, and [Config.ExtauthzInput] adds ours. Names below input are not checked when the policy is loaded, and the
	// functions that decode and verify tokens need not be allowed. Keys of a decision that mean nothing, reason and scope
	// among them, are logged once each, counted and ignored, and so are those of the other outcome, whatever their type.
	// The deciding rule may be a package. What else differs is in docs/from-opa-envoy.md.
	DialectOPAEnvoy Dialect = "opa-envoy"
)

// DefaultDecisionOPAEnvoy is the rule that decides in [DialectOPAEnvoy] unless [Config] names another: the plugin's own
// default.
const DefaultDecisionOPAEnvoy = "data.envoy.authz.allow"

func checkDialect(cfg Config) error {
	switch {
	case cfg.Dialect != DialectExtauthz && cfg.Dialect != DialectOPAEnvoy:
		return fmt.Errorf("Dialect is %q, want %q or %q", cfg.Dialect, DialectExtauthz, DialectOPAEnvoy)
	case cfg.ExtauthzInput && cfg.Dialect != DialectOPAEnvoy:
		return fmt.Errorf("ExtauthzInput is set and Dialect is %q, want %q with it", cfg.Dialect, DialectOPAEnvoy)
	}
	return nil
}

// builtins are the names of the functions that a policy may use although they are left out by default. OPA-Envoy
// verifies no token, so its policies do.
func (cfg Config) builtins() []string {
	allow := slices.Clone(cfg.AllowBuiltins)
	if cfg.Dialect != DialectOPAEnvoy {
		return allow
	}
	for name := range leftOut {
		if strings.HasPrefix(name, "io.jwt.decode") || strings.HasPrefix(name, "io.jwt.verify") {
			allow = append(allow, name)
		}
	}
	return allow
}

// decides reports whether a policy of the dialect may decide by a whole package, as the plugin's path may name one. No
// data file can add to it, as mergeData sees to.
func (cfg Config) decides(compiler *ast.Compiler, decision ast.Ref) bool {
	if cfg.Dialect != DialectOPAEnvoy {
		return false
	}
	for _, m := range compiler.Modules {
		if m.Package.Path.Equal(decision) {
			return true
		}
	}
	return false
}

// input builds what the policy sees.
func (e *Engine) input(in *Input, reads func(field string) bool) (ast.Value, error) {
	if e.cfg.Dialect == DialectOPAEnvoy {
		return in.opaEnvoy(reads, e.cfg.ExtauthzInput)
	}
	return in.value()
}

// opaEnvoy builds what a policy of [DialectOPAEnvoy] sees, without what it does not read.
func (in *Input) opaEnvoy(reads func(field string) bool, ours bool) (ast.Value, error) {
	if in == nil {
		return nil, &InputError{Got: "no input", Want: "one"}
	}
	var fields [][2]*ast.Term
	add := func(key *ast.Term, value func() ast.Value) {
		if name, _ := key.Value.(ast.String); reads(string(name)) {
			fields = append(fields, [2]*ast.Term{key, ast.NewTerm(value())})
		}
	}
	theirs, own := converter{goFloats: true}, converter{}
	add(keyAttributes, func() ast.Value { return theirs.object("attributes", in.Attributes) })
	add(keyParsedPath, func() ast.Value { return stringArray(in.ParsedPath) })
	add(keyParsedQuery, func() ast.Value { return stringLists(in.ParsedQuery) })
	add(keyParsedBody, func() ast.Value { return theirs.any("parsed_body", in.ParsedBody) })
	add(keyTruncatedBody, func() ast.Value { return ast.Boolean(in.TruncatedBody) })
	add(keyVersion, versionOPAEnvoy)
	if in.SourcePrincipal != "" {
		add(keySourcePrincipal, func() ast.Value { return ast.String(in.SourcePrincipal) })
	}
	if ours {
		add(keyExtauthz, func() ast.Value { return ast.NewObject(in.own(&own)...) })
	}
	for _, c := range []converter{theirs, own} {
		if c.err != nil {
			return nil, c.err
		}
	}
	return ast.NewObject(fields...), nil
}

var (
	keyExtauthz = ast.StringTerm("extauthz")
	keyVersion  = ast.StringTerm("version")
	keyAllowed  = ast.StringTerm("allowed")
)

// versionOPAEnvoy is what the plugin calls its input.
func versionOPAEnvoy() ast.Value {
	return ast.NewObject(
		ast.Item(ast.StringTerm("ext_authz"), ast.StringTerm("v3")),
		ast.Item(ast.StringTerm("encoding"), ast.StringTerm("protojson")),
	)
}

// The keys of a decision that the plugin knows, by the outcomes for which it looks at them.
var (
	onlyAllow = []ast.String{
		"response_headers_to_add", "request_headers_to_remove", "query_parameters_to_set", "query_parameters_to_remove",
	}
	onlyDeny = []ast.String{"http_status", "body"}
	bothWays = []ast.String{"allowed", "headers", "dynamic_metadata"}
)

// readOPAEnvoy reads the keys of a decision as the plugin does: those that it knows, of the outcome at hand.
func (d *decoder) readOPAEnvoy(object ast.Object) (keys, error) {
	var k keys
	r := reader{numberNames: true}
	if term := object.Get(keyAllowed); term != nil {
		k.allowed = r.boolean("allowed", term.Value)
	}
	if k.allowed == nil {
		r.fail("allowed", "missing", "true or false")
	}
	if r.err != nil {
		return keys{}, r.err
	}
	mine, other := onlyAllow, onlyDeny
	if !*k.allowed {
		mine, other = other, mine
	}
	for _, key := range object.Keys() { // sorted, so that of several mistakes the same is reported each time
		name, ok := key.Value.(ast.String)
		switch {
		case ok && (slices.Contains(bothWays, name) || slices.Contains(mine, name)):
			k.read(&r, name, object.Get(key).Value)
		case ok && slices.Contains(other, name):
		case ok:
			d.unknown.note(show(string(name)))
		default:
			d.unknown.note("(" + typeName(key.Value) + ")")
		}
	}
	if r.err != nil {
		return keys{}, r.err
	}
	return k, nil
}

// maxUnknownKeys bounds the keys that are logged and remembered: a policy may make keys of what requests say.
const maxUnknownKeys = 100

// unknownKeys counts the keys of decisions that mean nothing, and logs each once.
type unknownKeys struct {
	logger *slog.Logger
	count  atomic.Uint64
	mu     sync.Mutex
	told   map[string]bool
}

func newUnknownKeys(logger *slog.Logger) *unknownKeys {
	return &unknownKeys{logger: logger, told: make(map[string]bool)}
}

func (u *unknownKeys) note(key string) {
	u.count.Add(1)
	if u.tell(key) {
		u.logger.Warn("the decision has a key that means nothing and is ignored", "key", key)
	}
}

func (u *unknownKeys) tell(key string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.told[key] || len(u.told) == maxUnknownKeys {
		return false
	}
	u.told[key] = true
	return true
}
