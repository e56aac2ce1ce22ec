package authz

import (
	"strings"
	"time"

	"github.com/cognito-extauthz/extauthz/pkg/policy"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// A verdict is what a check came to. The zero verdict has no reason; respond turns it into a failure.
type verdict struct {
	kind
	reason     Reason
	scope      string          // of the challenge: what is needed
	detail     string          // for the log: never the token, a header value or the query
	retryAfter time.Duration   // of a failure
	ahead      time.Duration   // of a token that is not valid yet: by how much
	decision   policy.Decision // of a policy that allowed or denied
}

// The constructors below are the only ones: one for each kind of answer.

func allowed(d policy.Decision) verdict {
	return verdict{kind: isAllowed, reason: OK, decision: d}
}

func missing() verdict {
	return verdict{kind: isMissing, reason: MissingToken}
}

func invalid(reason Reason, detail string) verdict {
	return verdict{kind: isInvalid, reason: reason, detail: detail}
}

func refuse(reason Reason) verdict {
	return verdict{kind: isRefused, reason: reason}
}

// deny is for a decision of the policy, and for what is decided before it is asked.
func deny(reason Reason, d policy.Decision) verdict {
	v := verdict{kind: isDenied, reason: reason, detail: d.Detail, decision: d}
	if d.Scope != "" || reason == InsufficientScope {
		v.kind, v.scope = isScope, d.Scope
	}
	if d.HTTPStatus != 0 {
		v.status = d.HTTPStatus
	}
	return v
}

// denyScope names the scopes that would do; where any would, the first, as the built-in policy does.
func denyScope(e *validator.InsufficientScopeError) verdict {
	needed := e.RequiredScopes
	if e.ScopeMatch == validator.MatchAny {
		needed = needed[:1]
	}
	return verdict{
		kind:   isScope,
		reason: InsufficientScope,
		scope:  strings.Join(needed, " "),
		detail: e.Error(),
	}
}

func fail(reason Reason, detail string, retryAfter time.Duration) verdict {
	k := isUnavailable
	if reason == Panic {
		k = isPanic
	}
	return verdict{kind: k, reason: reason, detail: detail, retryAfter: retryAfter}
}

func (v verdict) because(err error) verdict {
	v.detail, v.ahead = err.Error(), skewOf(err)
	return v
}

// policyReason is the reason of a policy that denies.
func policyReason(d policy.Decision) Reason {
	switch {
	case d.Reason != "":
		return Reason(d.Reason)
	case d.Scope != "":
		return InsufficientScope
	}
	return PolicyDenied
}
