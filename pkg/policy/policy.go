// Package policy decides requests with Rego policies, in process.
//
// It answers one question, "may this caller do this?", for a caller whom package validator has authenticated. An
// [Input] goes in, a [Decision] comes out:
//
//	engine, err := policy.New(ctx, policy.Config{Dir: "policies"})
//	…
//	decision, err := engine.Decide(ctx, &policy.Input{Token: token, Route: route, …})
//	if err != nil {
//		// The policy gave no valid answer: 503. errors.As(err, &reason) tells why.
//	}
//	if decision.Allowed { … }
//
// # The policy
//
// Without Config.Dir the built-in policy decides by the route table: scopes, clients, pools (policies/extauthz/base.rego).
// A policy of your own defines the rule data.extauthz.decision, and extends the built-in one in three lines:
//
//	package extauthz
//
//	default decision := false
//	decision := data.extauthz.base.decision if not startswith(input.canonical.path, "/internal/")
//
// The rule's value is true, false, or an object with the keys in the comments of [Decision]. [Input] says what input
// holds. docs/policy.md has more examples, each with its tests.
//
// # What can go wrong, and does not allow
//
// Whatever is not a complete and valid answer is an error, and with an error the Decision is the zero Decision, which
// denies. A rule without a value is [ErrUndefined]. A rule with two values, or a panic, is an [*EvalError]. A key that
// nobody knows, a value of the wrong type, a header that the policy may not set: a [*DecisionError]. No answer within
// Config.Timeout is [ErrTimeout], and too much work already is [ErrOverloaded].
//
// Mistakes that can be found before the first request are found by [New], as a [*LoadError] with file, row and column:
// syntax, types, a misspelt name below input, a builtin function that may not be used.
//
// # Policies of OPA-Envoy
//
// With Config.Dialect set to [DialectOPAEnvoy], policies that were written for that plugin run as they are.
//
// # Goroutines
//
// Evaluating Rego makes a goroutine's stack grow, which is about a quarter of what a decision costs (BenchmarkDecide).
// While [Engine.Run] runs, the goroutines that evaluate live on; without it they end with their evaluation. The answers
// are the same.
//
// No OPA type is in an exported signature, so OPA's version is not part of this package's API.
package policy

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// DefaultDecision is the rule that decides unless [Config] names another.
const DefaultDecision = "data.extauthz.decision"

// DefaultTimeout bounds one decision unless [Config] says otherwise. The built-in policy takes about 0.1 ms, and
// Envoy waits 200 ms for the whole check by default (ext_authz.proto).
const DefaultTimeout = 50 * time.Millisecond

// Config says which policy decides and what its decisions may hold. The zero value is the built-in policy, and
// decisions that set no header on the upstream request.
type Config struct {
	// Dir is the directory of the user's policy: its *.rego files, and its data files, which are named data.json,
	// data.yaml or data.yml and whose content appears in data under the path of their directory. Tests (*_test.rego) and
	// names that start with a dot are left out. Default: only the built-in policy.
	Dir string
	// FS is the same as Dir for files that are not on disk, such as an embed.FS. At most one of the two may be set.
	FS fs.FS
	// LoadLater leaves the user's policy to [Engine.Load]. Until its first call every decision fails. Neither Dir nor FS
	// may be set. Default: New loads the policy.
	LoadLater bool
	// Data is what policies see below data.extauthz besides the rules there, such as the route table: JSON values by name.
	// Neither a data file nor a rule may have one of its names. Default none.
	Data map[string]any
	// Decision is the deciding rule. Default [DefaultDecision], or [DefaultDecisionOPAEnvoy] in that dialect.
	Decision string
	// Dialect is what input and decision look like. Default [DialectExtauthz].
	Dialect Dialect
	// ExtauthzInput adds canonical, token, route and context to the input of [DialectOPAEnvoy], below input.extauthz.
	ExtauthzInput bool
	// Timeout bounds one decision, the wait for a free goroutine included. Default [DefaultTimeout].
	Timeout time.Duration
	// Concurrency is how many evaluations run at once; more wait, until their Timeout. As many again may be past their
	// Timeout and not have noticed it (see [Stats]). Default four for each CPU that Go uses.
	Concurrency int
	// RequestHeaders are the headers that a policy may set on the upstream request or remove from it, in any case.
	// The authorization header may be removed without being listed. Default none.
	RequestHeaders []string
	// ReservedHeaders are the identity headers, which no policy may set or remove in any spelling, in either direction.
	ReservedHeaders []string
	// Reasons are the reasons of the policy's own that may be shown to callers and be metric labels, besides
	// the built-in ones. Each matches [a-z0-9_]{1,64}. Default none.
	Reasons []string
	// CacheBytes is how much memory remembered decisions may take, by an estimate. A decision is remembered by all that the
	// policy reads, and only if it depends on nothing else; [Engine.Caching] tells. A policy that is loaded anew begins
	// with none. Default none: each decision is an evaluation.
	CacheBytes int64
	// AllowBuiltins are names of Rego's builtin functions that are left out by default and may be used nevertheless, such
	// as "http.send". See [LeftOutBuiltins].
	AllowBuiltins []string
	// Now is the clock that policies read with time.now_ns. Default [time.Now].
	Now func() time.Time
	// Slow is called with the context of a Decide that is about to take long: before an evaluation, which takes some 50 µs of CPU
	// or more. Default: nothing is.
	Slow func(context.Context)
	// Logger gets a line when evaluations do not end, when a load leaves out files that look like data, and for each key that
	// [DialectOPAEnvoy] ignores. Default: none.
	Logger *slog.Logger
}

// An Engine decides requests. It is safe for concurrent use.
type Engine struct {
	cfg     Config
	decoder decoder
	workers *workers
	program atomic.Pointer[program]
	counts  cacheCounts
	reload  sync.Mutex // held while loading, so that the last load to start is the one that stays
}

// New checks cfg, then reads and compiles the policy. What is wrong with the policy is a [*LoadError].
func New(ctx context.Context, cfg Config) (*Engine, error) {
	cfg = withDefaults(cfg)
	var errData error
	cfg.Data, errData = copyJSON(cfg.Data)
	decoder, err := newDecoder(cfg.RequestHeaders, cfg.ReservedHeaders, cfg.Reasons)
	if err := errors.Join(err, errData, checkLimits(cfg), checkDialect(cfg)); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if cfg.Dialect == DialectOPAEnvoy {
		decoder.unknown = newUnknownKeys(cfg.Logger)
	}
	e := &Engine{cfg: cfg, decoder: decoder, workers: newWorkers(cfg.Concurrency, cfg.Timeout, cfg.Logger)}
	if cfg.LoadLater {
		return e, e.checkNames()
	}
	if err := e.Reload(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

// checkNames finds what is wrong with the Config of an engine that loads later, before it does.
func (e *Engine) checkNames() error {
	_, err1 := parseDecisionRef(e.cfg.Decision)
	_, err2 := capabilities(e.cfg.builtins())
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	return nil
}

func withDefaults(cfg Config) Config {
	cfg.Dialect = cmp.Or(cfg.Dialect, DialectExtauthz)
	if cfg.Dialect == DialectOPAEnvoy {
		cfg.Decision = cmp.Or(cfg.Decision, DefaultDecisionOPAEnvoy)
	}
	cfg.Decision = cmp.Or(cfg.Decision, DefaultDecision)
	cfg.Timeout = cmp.Or(cfg.Timeout, DefaultTimeout)
	cfg.Concurrency = cmp.Or(cfg.Concurrency, 4*runtime.GOMAXPROCS(0))
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Slow == nil {
		cfg.Slow = func(context.Context) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.AllowBuiltins = slices.Clone(cfg.AllowBuiltins) // read again by Reload
	return cfg
}

// copyJSON returns m as encoding/json has it, so that a []string becomes the list that Rego knows.
func copyJSON(m map[string]any) (map[string]any, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("Data is no JSON: %w", err)
	}
	var out map[string]any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	return out, decoder.Decode(&out)
}

func checkLimits(cfg Config) error {
	var errs []error
	if cfg.Timeout < 0 {
		errs = append(errs, fmt.Errorf("Timeout is %v, want more than zero", cfg.Timeout))
	}
	if cfg.Concurrency < 0 {
		errs = append(errs, fmt.Errorf("Concurrency is %d, want more than zero", cfg.Concurrency))
	}
	if cfg.CacheBytes < 0 {
		errs = append(errs, fmt.Errorf("CacheBytes is %d, want zero or more", cfg.CacheBytes))
	}
	if cfg.Dir != "" && cfg.FS != nil {
		errs = append(errs, errors.New("Dir and FS are both set, want at most one"))
	}
	if cfg.LoadLater && (cfg.Dir != "" || cfg.FS != nil) {
		errs = append(errs, errors.New("LoadLater is set beside Dir or FS, want one source"))
	}
	return errors.Join(errs...)
}

// Run keeps the goroutines that evaluate until ctx ends, and then returns nil. Without it, or after it, decisions are
// the same and cost about a third more CPU. Only one Run may run at a time.
func (e *Engine) Run(ctx context.Context) error {
	if err := e.workers.run(ctx); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	return nil
}

// Reload reads and compiles the policy anew and switches at once: a decision is by the old or the new one, never by
// both. On an error the engine keeps deciding with what it had.
func (e *Engine) Reload(ctx context.Context) error {
	e.reload.Lock()
	defer e.reload.Unlock()

	if e.cfg.LoadLater {
		return errors.New("policy: LoadLater is set, want a call of Load")
	}
	p, err := load(ctx, e.cfg)
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	e.program.Store(p)
	return nil
}

// Load compiles a policy of files in memory and switches to it, as [Engine.Reload] does with the files of a directory.
// The keys of content are slash-separated paths, which say what a file is by the same rules as in Config.Dir. The label
// says to people which policy it is, such as the version of a bundle; it goes before the revision, with an @ between.
// Load keeps content, so nobody may change it afterwards.
func (e *Engine) Load(ctx context.Context, content map[string][]byte, label string) error {
	e.reload.Lock()
	defer e.reload.Unlock()

	files, err := inMemory(content)
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	p, err := files.compile(ctx, e.cfg)
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	if label != "" {
		p.revision = label + "@" + p.revision
	}
	e.program.Store(p)
	return nil
}

// Fingerprint returns the revision that [Engine.Reload] would lead to if the policy compiles. It reads the files, and
// compiles nothing.
func (e *Engine) Fingerprint() (string, error) {
	files, err := readAll(e.cfg)
	if err != nil {
		return "", fmt.Errorf("policy: %w", err)
	}
	return files.revision(e.cfg), nil
}

// Revision identifies the policy that decides now: "sha256:" and 12 hex digits, made of the files, the rule, the
// dialect and the allowed builtins, behind the label that [Engine.Load] was given. It is empty as long as nothing is
// loaded. The revision that made a decision is [Decision.Revision].
func (e *Engine) Revision() string {
	if p := e.program.Load(); p != nil {
		return p.revision
	}
	return ""
}

// Stats returns what the engine's goroutines do at this moment, and what it has counted.
func (e *Engine) Stats() Stats {
	s := e.workers.stats()
	if e.decoder.unknown != nil {
		s.UnknownKeys = e.decoder.unknown.count.Load()
	}
	return s
}

// Decide evaluates the rule. It returns when there is an answer, when Config.Timeout has passed or when ctx ends,
// whichever is first. With an error the Decision is the zero Decision, so that a caller who forgets the error still
// denies.
//
// Every error but one of [Input.Complete] matches exactly one of [ErrUndefined], [ErrTimeout], [ErrOverloaded] and
// [ErrPolicy]; the last one also is a [*DecisionError], an [*EvalError] or an [*InputError].
//
// Decide does not change in but by [Input.Complete], and has copied what it needs of in's maps and slices when it returns. Its strings live on
// in an evaluation that has not noticed its end, so they must be ordinary, immutable strings.
func (e *Engine) Decide(ctx context.Context, in *Input) (Decision, error) {
	start := time.Now() // what follows before the evaluation counts as well
	program := e.program.Load()
	if program == nil {
		return Decision{}, fmt.Errorf("policy: %w", &EvalError{Message: "no policy is loaded yet"})
	}
	if in != nil && in.Asked != nil {
		policy := program.about
		policy.Revision, policy.program = program.revision, program
		in.Asked(policy)
	}
	if in != nil && in.Complete != nil {
		if err := in.Complete(in, program.mayRead); err != nil {
			return Decision{}, fmt.Errorf("policy: %w", err)
		}
	}
	if program.cache == nil || in == nil || ctx.Err() != nil {
		return e.ask(ctx, start, program, in)
	}
	key, ok := program.cache.key(in)
	defer key.release()
	if !ok {
		e.counts.bypassed.Add(1)
		return e.ask(ctx, start, program, in)
	}
	if d, ok := program.cache.get(key.buf); ok {
		e.counts.hits.Add(1)
		return d, nil
	}
	e.counts.misses.Add(1)
	remember := string(key.buf) // before the evaluation, which outlives neither the key nor in
	d, err := e.ask(ctx, start, program, in)
	if err == nil {
		program.cache.set(remember, d)
	}
	return d, err
}

// ask evaluates the rule, with what is left of the time.
func (e *Engine) ask(ctx context.Context, start time.Time, program *program, in *Input) (Decision, error) {
	e.cfg.Slow(ctx)
	ctx, stop := context.WithDeadlineCause(ctx, start.Add(e.cfg.Timeout), errTimeoutPassed)
	defer stop()
	input, err := e.input(in, program.mayRead)
	if err != nil {
		return Decision{}, fmt.Errorf("policy: %w", err)
	}
	d, err := e.workers.do(ctx, func(cancel *cancel) (Decision, error) {
		return e.evaluate(ctx, cancel, program, input)
	})
	if err != nil {
		return Decision{}, fmt.Errorf("policy: %w", err)
	}
	d.Revision = program.revision
	return d, nil
}

// evaluate runs on a goroutine of e.workers. A panic is an error.
func (e *Engine) evaluate(ctx context.Context, cancel *cancel, program *program, input ast.Value) (d Decision, err error) {
	defer func() {
		if r := recover(); r != nil {
			d, err = Decision{}, panicError(r)
		}
	}()
	value, err := program.eval(ctx, cancel, input, e.cfg.Now())
	if err != nil {
		return Decision{}, err
	}
	return e.decoder.decode(value)
}
