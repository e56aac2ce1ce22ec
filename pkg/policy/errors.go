package policy

import (
	"errors"
	"fmt"
	"strings"
)

// A Reason says in one word why a request is denied or why its check fails: short and stable, fit for a metric label.
// It is an error as well, so that errors.Is and errors.As find it in every error of [Engine.Decide].
type Reason string

// Reasons of a denial that every policy may give.
const (
	InsufficientScope Reason = "insufficient_scope" // RFC 6750 section 3.1; see Decision.Scope
	ClientNotAllowed  Reason = "client_not_allowed" // another client, or a client of another pool, may
	NoRoute           Reason = "no_route"           // no route matches the request
	PolicyDenied      Reason = "policy_denied"      // no reason was given, or one that is not in Config.Reasons
)

// Reasons of a failed check: there is no decision. Answer 503.
const (
	ErrUndefined  Reason = "policy_undefined" // the rule has no value for this input
	ErrTimeout    Reason = "policy_timeout"   // Config.Timeout passed during the evaluation, or the caller's context ended
	ErrOverloaded Reason = "overloaded"       // the evaluation could not start: all goroutines are busy
	ErrPolicy     Reason = "policy_error"     // the rule's value is no decision, or evaluating it failed
)

// Error returns the reason itself.
func (r Reason) Error() string { return string(r) }

// errTimeoutPassed is the cause of a context that Config.Timeout ended, to be told from the caller's own.
var errTimeoutPassed = errors.New("the policy's timeout passed")

// A DecisionError means that the rule's value is no valid [Decision]. It matches [ErrPolicy]. Its text holds no value
// that the policy gave, since that may be a secret, so it can be logged.
type DecisionError struct {
	Field string // the key at fault, such as "headers.x-tenant"; empty if the value as a whole is
	Got   string // what was found, such as "a number"
	Want  string // what would be valid, such as "a string or a list of strings"
}

// Error says what was found and what was wanted.
func (e *DecisionError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("the decision is %s, want %s", e.Got, e.Want)
	}
	return fmt.Sprintf("%s of the decision is %s, want %s", e.Field, e.Got, e.Want)
}

// Unwrap returns [ErrPolicy].
func (e *DecisionError) Unwrap() error { return ErrPolicy }

// An EvalError means that the evaluation failed: two rules gave different values, or a builtin function panicked.
// It matches [ErrPolicy]. Its text names code, not values, so it can be logged.
type EvalError struct {
	Message  string
	Location string // file:row:col of the expression; empty if not known
	Stack    []byte // of a panic; else nil
}

// Error returns the message after its location.
func (e *EvalError) Error() string {
	if e.Location == "" {
		return "evaluation failed: " + e.Message
	}
	return "evaluation failed at " + e.Location + ": " + e.Message
}

// Unwrap returns [ErrPolicy].
func (e *EvalError) Unwrap() error { return ErrPolicy }

// An InputError means that a part of the [Input] has no form in Rego, such as a number that is infinite or has a
// thousand digits. It matches [ErrPolicy]. Its text holds no value of the input.
type InputError struct {
	Field string // such as "parsed_body"
	Got   string
	Want  string
}

// Error says what was found and what was wanted.
func (e *InputError) Error() string {
	return fmt.Sprintf("input.%s holds %s, want %s", e.Field, e.Got, e.Want)
}

// Unwrap returns [ErrPolicy].
func (e *InputError) Unwrap() error { return ErrPolicy }

// A LoadError holds everything that keeps a policy from being used.
type LoadError struct {
	Problems []Problem // in order of file, row and column; never empty
}

// A Problem is one mistake in a policy.
type Problem struct {
	File     string // as it was read; empty if the problem is not in one file
	Row, Col int    // from one; zero if the problem is not at one place
	Message  string // may have several lines
	Hint     string // what to do about it; may be empty
}

// String formats a problem as compilers do: file:row:col: message.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Row > 0 {
			fmt.Fprintf(&b, ":%d:%d", p.Row, p.Col)
		}
		b.WriteString(": ")
	}
	b.WriteString(p.Message)
	if p.Hint != "" {
		b.WriteString("\nhint: " + p.Hint)
	}
	return b.String()
}

// Error lists the problems, one after the other.
func (e *LoadError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return "load: " + strings.Join(lines, "\n")
}
