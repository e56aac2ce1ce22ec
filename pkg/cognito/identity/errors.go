package identity

import (
	"fmt"
	"slices"
	"strings"
)

// A RoleError means that a suffix does not select exactly one of the user's roles.
type RoleError struct {
	Suffix  string   // what was asked for
	Matches []string // the roles that end in it: none, or several
	Roles   []string // all roles of the user, in the token's order
}

func (e *RoleError) Error() string {
	switch {
	case len(e.Roles) == 0:
		return fmt.Sprintf("identity: the user has no roles, want one that ends in %q\nhint: roles come from the user's groups; is the user in one, and does it have a role?", e.Suffix)
	case len(e.Matches) == 0:
		return fmt.Sprintf("identity: none of the user's roles ends in %q, want one of: %s", e.Suffix, strings.Join(e.Roles, ", "))
	}
	return fmt.Sprintf("identity: %d of the user's roles end in %q, want one: %s", len(e.Matches), e.Suffix, strings.Join(e.Matches, ", "))
}

// A RequestError means that a call to the identity pool failed, after its repetitions. Its text holds no token.
type RequestError struct {
	Operation  string // "GetId" or "GetCredentialsForIdentity"
	StatusCode int    // of the answer (HTTP); zero if there was none
	ErrorCode  string // of the API, such as "NotAuthorizedException"; empty if the answer was no error of the API
	Message    string // of the API, with secrets removed
	RequestID  string // x-amzn-requestid, for AWS Support; may be empty
	Hint       string // what is likely to help; may be empty
	Err        error  // unwraps to the SDK's error; its own text is Message

	temporary bool
}

func (e *RequestError) Error() string {
	text := "identity: " + e.Operation + ": "
	if e.ErrorCode != "" {
		text += e.ErrorCode + ": "
	}
	text += e.Message
	if e.StatusCode != 0 {
		text += fmt.Sprintf(" (status %d)", e.StatusCode)
	}
	if e.Hint != "" {
		text += "\nhint: " + e.Hint
	}
	return text
}

// Temporary reports whether the same call may succeed later: there was no answer, or none that can be read, or it was one of
// throttling or of a failing server.
func (e *RequestError) Temporary() bool { return e.temporary }

// Unwrap leads to the SDK's error.
func (e *RequestError) Unwrap() error { return e.Err }

func appendNew(list []string, item string) []string {
	if slices.Contains(list, item) {
		return list
	}
	return append(list, item)
}

// cut bounds what of others' text gets into an error.
func cut(text string) string {
	const most = 300
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
