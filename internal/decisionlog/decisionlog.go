// Package decisionlog writes down what became of each check: one JSON object for each decision.
//
// A [Log] takes a [Decision] and returns at once. Its queue's goroutine asks the policy what to mask, makes the line and
// writes it: a log that is slow, full or broken loses decisions, counts them, and does nothing else. The fields of a line are
// the table in fields.go, which docs/decision-log.md shows.
package decisionlog

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/asynclog"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

// A Decision is what is known of a check when its answer is fixed. Empty fields are left out of the line. It must not be
// changed once it is logged.
type Decision struct {
	ID      string
	Time    time.Time // when the check began
	Outcome string
	Reason  string
	Status  int  // of HTTP
	Failed  bool // nothing could be decided: the line's level is ERROR

	Pool, Client, ClientID, TokenID string
	Scopes                          []string
	Route, Method, Host, Path       string
	SourcePrincipal                 string
	Detail                          string

	// Policy is the one that was asked. The zero Policy: none was.
	Policy         policy.Policy
	ConfigRevision string

	// How long the steps took, of those that were taken.
	Read, ToRoute, Authenticate, Authorize, Respond Step
	Took                                            time.Duration

	TraceID, RequestID string
	SampleRatio        float64
	Included           []Included
	// Replay tells whether the line can be replayed, with what is peculiar about the request.
	Replay  *Replay
	Request Request
}

// A Step is the time that a step took. The zero Step was not taken.
type Step struct {
	Took  time.Duration
	Taken bool
}

// Included is a field that the configuration asks for.
type Included struct {
	Kind  Kind
	Name  string
	Value any // JSON
}

// A Kind says where an [Included] comes from.
type Kind string

// The kinds of included fields. They are the first part of a field's name.
const (
	Headers Kind = "headers"
	Query   Kind = "query"
	Claims  Kind = "claims"
)

// Rules are what the policy says about the log: data.system.log.mask and data.system.log.drop, as in OPA. A
// [*policy.Engine] has them.
type Rules interface {
	HasLogRules(by policy.Policy) bool
	MaskLog(ctx context.Context, by policy.Policy, event map[string]any) (policy.LogVerdict, error)
}

// Config says what a [Log] works with.
type Config struct {
	// Rules may be nil.
	Rules Rules
	// Path is that of the deciding rule, with slashes and without data, as OPA's events have it: extauthz/decision.
	Path string
	// Logger is told of the first failure of a mask rule, and of the first after an hour. It must not wait.
	Logger *slog.Logger
}

// A Log is safe for concurrent use.
type Log struct {
	cfg          Config
	send         func(context.Context, Event) error // nil: lines are made
	queue        *asynclog.Queue
	lost         atomic.Uint64
	maskFailures atomic.Uint64
	told         time.Time // of a failure; used by the queue's goroutine only
}

// Limits of what waits to be written. A burst of denials fits; a log that nobody reads costs no more than this.
var Limits = asynclog.Limits{Items: 8 << 10, Bytes: 16 << 20}

// New returns a Log to a queue, which others may use as well. Whoever made the queue closes it.
func New(queue *asynclog.Queue, cfg Config) *Log {
	return &Log{cfg: cfg, queue: queue}
}

// NewEvents returns a Log that hands each decision to send as OPA's event, one after the other, and the queue that it waits in.
func NewEvents(cfg Config, send func(context.Context, Event) error) (*Log, *asynclog.Queue) {
	queue := asynclog.NewQueue(Limits, func(items []asynclog.Item) {
		for _, item := range items {
			_ = item.Append(nil)
		}
	})
	l := New(queue, cfg)
	l.send = send
	return l, queue
}

// Record takes a decision. It never waits and never fails.
func (l *Log) Record(d *Decision) { l.queue.Put(&item{d, l}) }

// Lost returns how many decisions were not written, or not wholly.
func (l *Log) Lost() uint64 { return l.lost.Load() }

// MaskFailures returns how many decisions were written without all that a mask rule could have masked, because the rule
// failed.
func (l *Log) MaskFailures() uint64 { return l.maskFailures.Load() }

// item is a decision in the queue.
type item struct {
	decision *Decision
	log      *Log
}

func (i *item) Lost() { i.log.lost.Add(1) }

// Line returns the line of a decision that no rule masks.
func Line(d *Decision) []byte { return newRecord(d).append(nil) }

// overhead is about what a decision takes besides its texts.
const overhead = 1 << 10

func (i *item) Size() int {
	d := i.decision
	size := overhead + len(d.Path) + len(d.Host) + len(d.Detail) + len(d.SourcePrincipal) + len(d.RequestID)
	for _, s := range d.Scopes {
		size += len(s)
	}
	for _, f := range d.Included {
		size += sizeOf(f.Value)
	}
	return size
}

// sizeOf is about the size of a JSON value.
func sizeOf(value any) int {
	const atom = 16
	switch v := value.(type) {
	case string:
		return atom + len(v)
	case []string:
		size := atom
		for _, s := range v {
			size += atom + len(s)
		}
		return size
	case []any:
		size := atom
		for _, e := range v {
			size += sizeOf(e)
		}
		return size
	case map[string]any:
		size := atom
		for name, e := range v {
			size += len(name) + sizeOf(e)
		}
		return size
	}
	return atom
}

// Append makes the line. A panic, of a rule or of who gets the event, loses the decision: the queue must go on.
func (i *item) Append(dst []byte) (line []byte) {
	defer func() {
		if p := recover(); p != nil {
			i.Lost()
			line = dst
		}
	}()
	return i.log.write(dst, i)
}

// ruleTimeout bounds the log rules of one decision. Nobody waits for them but other lines.
const ruleTimeout = time.Second

func (l *Log) write(dst []byte, i *item) []byte {
	r := newRecord(i.decision)
	if l.send == nil && (l.cfg.Rules == nil || !l.cfg.Rules.HasLogRules(r.Policy)) {
		return r.append(dst)
	}
	ctx, cancel := context.WithTimeout(context.Background(), ruleTimeout)
	defer cancel()
	if l.cfg.Rules != nil && l.cfg.Rules.HasLogRules(r.Policy) && !l.rules(ctx, r) {
		return dst
	}
	if l.send == nil {
		return r.append(dst)
	}
	if err := l.send(ctx, r.event(l.cfg.Path)); err != nil {
		i.Lost()
	}
	return dst
}

// rules applies the policy's rules, and reports whether they want the decision logged.
func (l *Log) rules(ctx context.Context, r *record) bool {
	doc := r.document(l.cfg.Path)
	verdict, err := l.cfg.Rules.MaskLog(ctx, r.Policy, doc)
	switch {
	case err != nil:
		l.maskFailed(r.ID, err)
		r.withoutMaskable()
	case verdict.Drop:
		return false
	default:
		r.mask(doc, verdict.Masked)
	}
	return true
}

// tellEvery is how often a failing mask rule is logged. The metric counts each time.
const tellEvery = time.Hour

func (l *Log) maskFailed(id string, err error) {
	l.maskFailures.Add(1)
	if l.cfg.Logger == nil || !l.told.IsZero() && time.Since(l.told) < tellEvery {
		return
	}
	l.told = time.Now()
	l.cfg.Logger.Error("rule data.system.log of the policy fails: decisions are logged without what it could mask",
		"decision_id", id, "error", fmt.Sprintf("%.500s", err))
}
