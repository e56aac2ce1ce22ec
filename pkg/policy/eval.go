package policy

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// A cancel tells an evaluation to end. It is OPA's topdown.Cancel. With one of our own, OPA needs no goroutine that
// watches the context.
type cancel struct{ flag atomic.Bool }

func (c *cancel) Cancel()         { c.flag.Store(true) }
func (c *cancel) Cancelled() bool { return c.flag.Load() }

// eval evaluates the rule on input.
func (p *program) eval(ctx context.Context, cancel *cancel, input ast.Value, now time.Time) (ast.Value, error) {
	results, err := p.query.Eval(ctx,
		rego.EvalParsedInput(input),
		rego.EvalExternalCancel(cancel),
		rego.EvalTime(now),
	)
	switch {
	case cancel.Cancelled() || ctx.Err() != nil:
		// Whatever the result is: a builtin that was cancelled may have been undefined, and a "not" around it true.
		return nil, ErrTimeout
	case err != nil:
		return nil, evalError(err)
	case len(results) == 0:
		return nil, ErrUndefined
	case len(results) > 1 || len(results[0].Expressions) != 1:
		return nil, &EvalError{Message: "the rule has more than one value"}
	}
	value, ok := results[0].Expressions[0].Value.(ast.Value)
	if !ok {
		return nil, &EvalError{Message: "the rule's value was not returned"}
	}
	return value, nil
}

// evalError keeps the code, message and place of OPA's error. OPA's own text may hold more than that.
func evalError(err error) error {
	var e *topdown.Error
	if !errors.As(err, &e) {
		return &EvalError{Message: fmt.Sprintf("a %T", err)}
	}
	if e.Code == topdown.CancelErr {
		return ErrTimeout
	}
	out := &EvalError{Message: e.Code}
	if e.Code == topdown.ConflictErr || e.Code == topdown.WithMergeErr {
		// Other messages may quote an argument, and these list the values from their second line on.
		text, _, _ := strings.Cut(e.Message, "\n")
		out.Message += ": " + strings.TrimSuffix(text, ":")
	}
	if loc := e.Location; loc != nil {
		out.Location = loc.File + ":" + strconv.Itoa(loc.Row) + ":" + strconv.Itoa(loc.Col)
	}
	return out
}

// panicError keeps the text of the runtime's own panics; that of others may hold values.
func panicError(r any) error {
	text := fmt.Sprintf("a %T", r)
	if e, ok := r.(runtime.Error); ok {
		text = e.Error()
	}
	return &EvalError{Message: "panic: " + text, Stack: debug.Stack()}
}
