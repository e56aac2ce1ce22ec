package authz

import (
	"google.golang.org/grpc/codes"

	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// An Outcome is one of the four things that can come of a check.
type Outcome string

const (
	Allowed Outcome = "allowed" // the request goes on
	Refused Outcome = "refused" // the token, or what stands in its place, is not accepted: 400 or 401
	Denied  Outcome = "denied"  // the caller is known and may not do this: 403, or what the policy says
	Failed  Outcome = "failed"  // nothing could be decided: 5xx
)

// A Reason says why a check came out as it did. The built-in ones are metric labels, log fields, fields of problem
// bodies, and the rows of docs/reasons.md, all at once.
type Reason string

const (
	OK                Reason = "allowed"
	MissingToken      Reason = "missing_token"
	InvalidRequest    Reason = "invalid_request"
	InvalidPath       Reason = "invalid_path"
	Malformed                = Reason(validator.ErrMalformed)
	Algorithm                = Reason(validator.ErrAlgorithm)
	Issuer                   = Reason(validator.ErrIssuer)
	Claims                   = Reason(validator.ErrClaims)
	Expired                  = Reason(validator.ErrExpired)
	NotYetValid              = Reason(validator.ErrNotYetValid)
	TokenUse                 = Reason(validator.ErrTokenUse)
	Audience                 = Reason(validator.ErrAudience)
	ScopeClaim               = Reason(validator.ErrScopeClaim)
	NotAMachine              = Reason(validator.ErrNotAMachine)
	UnknownKey               = Reason(validator.ErrUnknownKey)
	Signature                = Reason(validator.ErrSignature)
	Revoked                  = Reason(validator.ErrRevoked)
	InsufficientScope        = Reason(validator.ErrInsufficientScope)
	ClientNotAllowed         = Reason(validator.ErrClient)
	NoRoute           Reason = "no_route"
	PolicyDenied      Reason = "policy_denied"
	KeysUnavailable          = Reason(validator.ErrKeysUnavailable)
	PolicyError       Reason = "policy_error"
	PolicyUndefined   Reason = "policy_undefined"
	PolicyTimeout     Reason = "policy_timeout"
	Overloaded        Reason = "overloaded"
	Panic             Reason = "panic"
)

// A kind of answer: what all of its reasons have in common.
type kind struct {
	outcome   Outcome
	code      codes.Code // of the CheckResponse
	status    int        // HTTP
	challenge string     // the error code of RFC 6750 section 3.1; empty without one
}

var (
	isAllowed     = kind{Allowed, codes.OK, 0, ""}
	isMissing     = kind{Refused, codes.Unauthenticated, 401, ""}
	isInvalid     = kind{Refused, codes.InvalidArgument, 400, "invalid_request"}
	isRefused     = kind{Refused, codes.Unauthenticated, 401, "invalid_token"}
	isScope       = kind{Denied, codes.PermissionDenied, 403, "insufficient_scope"}
	isDenied      = kind{Denied, codes.PermissionDenied, 403, ""}
	isUnavailable = kind{Failed, codes.Unavailable, 503, ""}
	isPanic       = kind{Failed, codes.Internal, 500, ""}
)

// A built-in reason's row: the kind of its answer, and what the caller is told. The text says what to do and gives
// nothing away that would help to make a better forgery.
type row struct {
	kind
	tell string
}

const notAccepted = "The access token was not accepted."

var rows = map[Reason]row{
	OK:                {isAllowed, ""},
	MissingToken:      {isMissing, "Send an access token: Authorization: Bearer …"},
	InvalidRequest:    {isInvalid, "The request has no single well-formed Authorization: Bearer header, or parts of it are malformed or too large."},
	InvalidPath:       {isInvalid, "The path or host can be read in more than one way. Send it in its plain form."},
	Malformed:         {isRefused, notAccepted},
	Algorithm:         {isRefused, notAccepted},
	Issuer:            {isRefused, notAccepted},
	Claims:            {isRefused, notAccepted},
	Expired:           {isRefused, "The access token has expired. Get a new one."},
	NotYetValid:       {isRefused, "The access token is not valid yet. Check the clocks."},
	TokenUse:          {isRefused, "This is no access token. Send the access token."},
	Audience:          {isRefused, notAccepted},
	ScopeClaim:        {isRefused, notAccepted},
	NotAMachine:       {isRefused, "Only tokens of the client credentials grant are accepted here."},
	UnknownKey:        {isRefused, notAccepted},
	Signature:         {isRefused, notAccepted},
	Revoked:           {isRefused, "The access token has been revoked."},
	InsufficientScope: {isScope, "The access token lacks a scope that this request needs."},
	ClientNotAllowed:  {isDenied, "This client may not do this."},
	NoRoute:           {isDenied, "No route is configured for this method, host and path."},
	PolicyDenied:      {isDenied, "The policy denies this request."},
	KeysUnavailable:   {isUnavailable, "The token cannot be verified at the moment. Try again later."},
	PolicyError:       {isUnavailable, "No decision could be made. Try again later."},
	PolicyUndefined:   {isUnavailable, "No decision could be made. Try again later."},
	PolicyTimeout:     {isUnavailable, "No decision could be made in time. Try again later."},
	Overloaded:        {isUnavailable, "Too many requests at once. Try again later."},
	Panic:             {isPanic, "No decision could be made."},
}

// rowOf returns the row of a reason. One that a policy made up gets that of [PolicyDenied].
func rowOf(r Reason) row {
	if row, ok := rows[r]; ok {
		return row
	}
	return rows[PolicyDenied]
}
