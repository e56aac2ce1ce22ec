# The built-in decision, but for two things: order 13 is nobody's, and the service is told what the policy saw.
package extauthz

default decision := false

decision := {"allowed": false, "reason": "policy_denied", "http_status": 404} if {
	input.route.params.id == data.hidden.order
} else := {"allowed": true, "response_headers_to_add": {
	"x-seen-path": input.canonical.path,
	"x-seen-host": input.canonical.host,
	"x-seen-target": input.attributes.request.http.path,
}} if {
	data.extauthz.base.decision.allowed
} else := data.extauthz.base.decision
