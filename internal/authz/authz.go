// Package authz is the way of a CheckRequest: read, route, authenticate, authorize, respond, record. Check in this
// file is that way; each step has a file of its own (request.go, input.go, identity.go, response.go, record.go).
//
// Three words, never swapped: a token is refused (401), a request is denied (403), a check fails (503).
//
// A CheckResponse that is empty, or whose status is OK, lets the request through, and so may a gRPC error, if Envoy
// is set to failure_mode_allow. So Check never returns an error, allow in response.go is the only code that builds
// an OK answer, and whatever goes wrong on the way, a panic included, ends in a denied_response.
package authz

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.opentelemetry.io/otel/trace"

	"github.com/cognito-extauthz/extauthz/internal/decisionlog"
	"github.com/cognito-extauthz/extauthz/internal/route"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// An Authenticator verifies a bearer token. Its errors match a [validator.Reason].
type Authenticator interface {
	Validate(ctx context.Context, token string) (*validator.Claims, error)
}

// An Authorizer decides about a request. With an error, its Decision means nothing. The input and what it points to are only
// good for the call.
type Authorizer interface {
	Decide(ctx context.Context, in *policy.Input) (policy.Decision, error)
	// Revision identifies the policy, for the decision log.
	Revision() string
}

// A Config holds what a [Service] works with. All fields are required but those that say otherwise.
type Config struct {
	Authenticator Authenticator
	Authorizer    Authorizer
	Routes        *route.Table
	// ClientName returns the configured name of a pool's app client; empty if it has none.
	ClientName func(pool, clientID string) string
	Identity   Identity
	// Realm of the challenges (RFC 9110 section 11.5). Printable ASCII without quotes and backslashes.
	Realm string
	// OPAEnvoy shows the policy what the OPA-Envoy plugin would, and asks it about requests without a route, too.
	OPAEnvoy bool
	// AuthenticationOptional lets requests without a token reach the policy. A token that is there is verified.
	AuthenticationOptional bool
	// RemoveAuthorization keeps the token from the upstream.
	RemoveAuthorization bool
	Limits              Limits
	Log                 DecisionLog
	// Logger gets faults.
	Logger  *slog.Logger
	Metrics *Metrics
	Tracer  trace.Tracer
	// Sample decides whether Tracer is told of a request, by the request's traceparent; empty: it has none.
	Sample func(traceparent string) bool
}

// Limits bound what one check may cost. What is over a limit is answered with 400, and with 503 over
// ConcurrentChecks.
type Limits struct {
	PathBytes        int // the path with its query
	HeaderBytes      int // names and values of all headers
	BodyBytes        int // the body that Envoy forwards, where it is set to
	TokenBytes       int // the bearer token
	ConcurrentChecks int // checks under way at once
}

// A Service answers checks. It implements the Envoy API's AuthorizationServer and is safe for concurrent use.
type Service struct {
	Config
	underway atomic.Int64 // checks
	scrub    scrubber
	// identifier names the identity headers.
	identifier identifier
	recorder   *recorder
}

// New returns a Service.
func New(cfg Config) *Service {
	return &Service{
		Config:     cfg,
		scrub:      newScrubber(cfg.Identity),
		recorder:   newRecorder(cfg),
		identifier: newIdentifier(cfg.Identity),
	}
}

// CheckMessage answers a message that holds a CheckRequest with one that holds a CheckResponse. It does what Check does,
// and is how Envoy is answered: it decodes only what is needed and writes the answer as bytes. The message must not change
// any more. One that is no CheckRequest is answered too: a gRPC error would be the usual answer, and is one that lets
// requests pass under failure_mode_allow.
func (s *Service) CheckMessage(ctx context.Context, dst, msg []byte) (resp []byte) {
	defer func() {
		if p := recover(); p != nil {
			s.reportPanic(&check{ctx: ctx}, p)
			resp = (&reply{code: isPanic.code, message: string(Panic), denied: true, status: isPanic.status}).appendTo(dst)
		}
	}()
	c := newCheck(ctx)
	resp = s.answer(c, func(r *request) bool { return take(msg, r) }).appendTo(dst)
	c.release()
	return resp
}

// Check answers whether Envoy may let a request through. It never returns an error.
func (s *Service) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	c := newCheck(ctx)
	defer c.release()
	return s.answer(c, func(r *request) bool { decoded(req, r); return true }).proto(), nil
}

// answer takes a request, makes an answer of the verdict on it, and records that. A panic, wherever it comes from, becomes the
// answer to a failure.
func (s *Service) answer(c *check, take func(*request) bool) (a *reply) {
	defer func() {
		if p := recover(); p != nil {
			s.reportPanic(c, p)
			a = s.denied(c, fail(Panic, "panic", 0))
		}
	}()
	v := s.decide(c, take)
	a = s.respond(c, v)
	c.took(&c.steps.respond)
	s.recorder.record(c, v)
	return a
}

func (s *Service) decide(c *check, take func(*request) bool) verdict {
	ok := take(&c.request)
	c.took(&c.steps.read)
	if !ok {
		return invalid(errUndecodable.reason, errUndecodable.detail)
	}
	c.ctx, c.span = s.recorder.span(c.ctx, &c.request)
	return s.verdict(c)
}

// reportPanic logs a panic. If the log is what panics, so be it.
func (s *Service) reportPanic(c *check, p any) {
	defer func() { _ = recover() }()
	s.Logger.ErrorContext(c.ctx, "panic in check", "decision_id", c.id, "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
}

// A check is one CheckRequest on its way: what is known of it grows from step to step. It is in one piece, with room for what
// most checks need, and is used again for another check. So nobody keeps a pointer to it or into it once it is answered.
type check struct {
	ctx      context.Context //nolint:containedctx // lives no longer than the call that it is the argument of
	span     trace.Span      // nil: no traces are made
	start    time.Time
	mark     time.Duration // since start: when the last step ended
	id       string        // decision id
	request  request
	match    *route.Match
	claims   *validator.Claims
	client   string // the client's configured name
	identity []fact
	facts    [maxFacts]fact // room for identity and for the answer's metadata
	asked    asked
	policy   policy.Policy // that was asked
	reply    reply
	steps    steps
}

// steps are how long the steps of a check took.
type steps struct{ read, route, authenticate, authorize, respond decisionlog.Step }

var checks = sync.Pool{New: func() any { return new(check) }}

func newCheck(ctx context.Context) *check {
	c, _ := checks.Get().(*check)
	c.ctx, c.id, c.start = ctx, newDecisionID(), time.Now()
	return c
}

// release hands c on to another check. The answer must be written by then.
func (c *check) release() {
	*c = check{}
	checks.Put(c)
}

// took ends a step: the time since the one before is its.
func (c *check) took(s *decisionlog.Step) {
	now := time.Since(c.start)
	*s = decisionlog.Step{Took: s.Took + now - c.mark, Taken: true}
	c.mark = now
}

// verdict takes the steps of a check, in the order of docs/request.md.
func (s *Service) verdict(c *check) (v verdict) {
	defer func() {
		if p := recover(); p != nil {
			s.reportPanic(c, p)
			v = fail(Panic, "panic", 0)
		}
	}()
	ctx := beforeDeadline(c.ctx, c.start)
	defer ctx.release()
	c.ctx = ctx
	defer s.underway.Add(-1)
	if s.underway.Add(1) > int64(s.Limits.ConcurrentChecks) {
		return fail(Overloaded, "too many checks at once", time.Second)
	}

	if v, ok := s.read(c); !ok {
		return v
	}
	if v, ok := s.route(c); !ok {
		return v
	}
	if v, ok := s.authenticate(c); !ok {
		return v
	}
	return s.authorize(c)
}

// read holds the request to the limits and finds its canonical path and host.
func (s *Service) read(c *check) (verdict, bool) {
	defer c.took(&c.steps.read)
	if err := s.check(&c.request); err != nil {
		return invalid(err.reason, err.detail), false
	}
	return verdict{}, true
}

// route finds the route. Having none, and a path that this route does not admit, is settled after authentication: who
// has no token must not learn which routes there are.
func (s *Service) route(c *check) (verdict, bool) {
	defer c.took(&c.steps.route)
	r := &c.request
	c.match = s.Routes.Match(r.host, r.method, r.path)
	if err := s.Routes.Admits(r.path); err != nil {
		return invalid(InvalidPath, err.Error()), false
	}
	return verdict{}, true
}

// authenticate verifies the bearer token, unless the route is public.
func (s *Service) authenticate(c *check) (verdict, bool) {
	defer c.took(&c.steps.authenticate)
	if c.public() {
		return verdict{}, true
	}
	token, err := bearer(c.request.authorization, s.Limits.TokenBytes)
	switch {
	case err != nil:
		return invalid(InvalidRequest, err.Error()), false
	case token == "" && s.AuthenticationOptional:
		return verdict{}, true
	case token == "":
		return missing(), false
	}
	claims, verr := s.Authenticator.Validate(c.ctx, token)
	if verr != nil {
		s.know(c, validator.VerifiedClaims(verr))
		return unauthenticated(verr), false
	}
	s.know(c, claims)
	c.identity = s.identifier.of(claims, c.client, c.facts[:0])
	return verdict{}, true
}

// know notes who is calling, for the policy and the record. Claims may be nil: nobody knows.
func (s *Service) know(c *check, claims *validator.Claims) {
	if claims != nil {
		c.claims, c.client = claims, s.ClientName(claims.Pool, claims.ClientID)
	}
}

// authorize asks the policy. Without a route there is nothing to ask it about, unless it needs none.
func (s *Service) authorize(c *check) verdict {
	defer c.took(&c.steps.authorize)
	if err := c.match.Admits(c.request.path); err != nil {
		return invalid(InvalidPath, err.Error())
	}
	if c.match == nil && !s.OPAEnvoy {
		return deny(NoRoute, policy.Decision{})
	}
	d, err := s.Authorizer.Decide(c.ctx, s.input(c))
	switch {
	case err != nil && unreadable(err):
		return invalid(InvalidRequest, err.Error())
	case err != nil:
		return undecided(err)
	case !d.Allowed:
		return deny(policyReason(d), d)
	}
	return allowed(d)
}

func (c *check) public() bool { return c.match != nil && c.match.Rule.Public }

// unauthenticated turns an Authenticator's error into the verdict.
func unauthenticated(err error) verdict {
	if refused, ok := err.(*validator.TokenError); ok && onlyRefused(refused) { //nolint:errorlint // what follows takes ten times as long
		v := refuse(Reason(refused.Reason))
		v.detail = err.Error() // which is all there is to say: it has no cause
		return v
	}
	var scopes *validator.InsufficientScopeError
	switch {
	case errors.As(err, &scopes):
		return denyScope(scopes)
	case errors.Is(err, validator.ErrClient):
		return deny(ClientNotAllowed, policy.Decision{}).because(err)
	case errors.Is(err, validator.ErrKeysUnavailable):
		return fail(KeysUnavailable, err.Error(), validator.RetryAfter(err))
	}
	var reason *validator.TokenError
	if errors.As(err, &reason) {
		return refuse(Reason(reason.Reason)).because(err)
	}
	// No Reason: the Authenticator is at fault and the token was not accepted.
	return fail(KeysUnavailable, err.Error(), time.Second)
}

// onlyRefused reports whether an error has no cause that could be something else, and is no denial or failure itself.
func onlyRefused(e *validator.TokenError) bool {
	return e.Err == nil && e.Reason != validator.ErrClient && e.Reason != validator.ErrKeysUnavailable
}

// unreadable reports whether the policy was not asked because of the request itself.
func unreadable(err error) bool {
	var request *requestError
	var input *policy.InputError
	return errors.As(err, &request) || errors.As(err, &input) && input.Field == "parsed_body"
}

// undecided turns an Authorizer's error into the verdict.
func undecided(err error) verdict {
	reason := PolicyError
	switch {
	case errors.Is(err, policy.ErrUndefined):
		reason = PolicyUndefined
	case errors.Is(err, policy.ErrTimeout):
		reason = PolicyTimeout
	case errors.Is(err, policy.ErrOverloaded):
		reason = Overloaded
	}
	return fail(reason, err.Error(), time.Second)
}
