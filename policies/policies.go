// Package policies holds the policies that extauthz ships, as files.
//
// Two of them are built into the program: extauthz/base.rego, which decides by the route table, and
// extauthz/decision.rego, which makes base.rego the decision of whoever has no policy of their own. Package
// pkg/policy loads them; docs/policy.md says how to replace or extend them. The tests beside them (*_test.rego) run
// with "opa test policies/extauthz", the pairs of input and decision in cases/ with the Go tests of pkg/policy.
package policies

import "embed"

// The names of the embedded files in [FS].
const (
	// Base holds package extauthz.base, the decision by the route table. It is always loaded.
	Base = "extauthz/base.rego"
	// Decision holds package extauthz, one line that forwards to Base. A user's own policy takes its place.
	Decision = "extauthz/decision.rego"
)

// FS holds the embedded policies: [Base] and [Decision].
//
//go:embed extauthz/base.rego extauthz/decision.rego
var FS embed.FS
