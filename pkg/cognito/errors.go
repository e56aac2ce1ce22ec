package cognito

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// Error codes of a token endpoint (RFC 6749 section 5.2), which [TokenRequestError.ErrorCode] may be. Others occur.
const (
	InvalidRequest       = "invalid_request"
	InvalidClient        = "invalid_client"
	InvalidGrant         = "invalid_grant"
	UnauthorizedClient   = "unauthorized_client"
	UnsupportedGrantType = "unsupported_grant_type"
	InvalidScope         = "invalid_scope"
)

// A TokenRequestError means that a request to the token endpoint, or to the revocation endpoint, brought no token: the
// endpoint said no, answered something that is no answer, or did not answer. With an answer it matches
// [*oauth2.RetrieveError] as well, by [errors.As].
//
// It holds no secret and no token: neither those that were sent nor any that the answer has.
type TokenRequestError struct {
	// StatusCode is the status of the answer; 0 if there was none.
	StatusCode int
	// ErrorCode and ErrorDescription are the members error and error_description of the answer (RFC 6749 section 5.2);
	// empty if it has none. The code is [InvalidClient], for one. The description is the server's: for people, and cut short.
	ErrorCode, ErrorDescription string
	// ResponseBody is the start of the answer's body, for logs. Secrets and tokens in it are replaced by […]. It is empty
	// if there was none, or if it was not read to its end.
	ResponseBody string
	// RequestID is Cognito's name for the request (x-amz-cognito-request-id), for AWS Support; may be empty.
	RequestID string
	// RetryAfter is how long to wait before asking again, by the answer's Retry-After (RFC 9110 section 10.2.3); 0 if it
	// does not say, and at most [MaxRetryAfter].
	RetryAfter time.Duration
	// Attempts is how many requests were sent, this one included.
	Attempts int
	// Err says what is wrong with the answer, or why there is none. It is nil if the answer says it by ErrorCode.
	Err error

	temporary bool
	retrieve  *oauth2.RetrieveError // nil without an answer
}

// MaxRetryAfter is the longest [TokenRequestError.RetryAfter]: a server that says an hour by mistake must not keep its
// callers away that long.
const MaxRetryAfter = time.Minute

func (e *TokenRequestError) Error() string {
	var b strings.Builder
	b.WriteString("cognito: token request failed")
	if e.StatusCode != 0 {
		fmt.Fprintf(&b, ": status %d", e.StatusCode)
	}
	if e.ErrorCode != "" {
		fmt.Fprintf(&b, ": error is %q", e.ErrorCode)
		if e.ErrorDescription != "" {
			fmt.Fprintf(&b, " (%q)", e.ErrorDescription)
		}
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Attempts > 1 {
		fmt.Fprintf(&b, " (after %d requests)", e.Attempts)
	}
	return b.String()
}

// Unwrap returns the cause, and with an answer its [*oauth2.RetrieveError], whose Response has status and header only.
func (e *TokenRequestError) Unwrap() []error {
	var errs []error
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	if e.retrieve != nil {
		errs = append(errs, e.retrieve)
	}
	return errs
}

// Temporary reports whether the same request may succeed later: there was no answer, or not all of it, or it was 429 or
// 5xx.
func (e *TokenRequestError) Temporary() bool {
	return e.temporary || e.StatusCode == http.StatusTooManyRequests || e.StatusCode >= 500
}

// refusesClient reports whether the endpoint did not accept the client's secret. Cognito answers 400 with the code; RFC
// 6749 section 5.2 would have 401.
func (e *TokenRequestError) refusesClient() bool {
	return e.ErrorCode == InvalidClient || e.StatusCode == http.StatusUnauthorized && e.ErrorCode == ""
}

// IsTemporary reports whether err is one of getting a token that may be gone when it is tried again later: no answer, a
// 429 or a 5xx, or the end of a context. It is false for invalid_client and its kind, which need somebody to do something.
func IsTemporary(err error) bool {
	if request := (*TokenRequestError)(nil); errors.As(err, &request) {
		return request.Temporary()
	}
	return isContextError(err)
}
