# Decides by the name of the case in the path, for a test of each kind of answer. It asks the built-in policy nothing:
# the reader has no scope for anything here, and is let in.
package extauthz

case := input.route.params.case

decision := true if case == "yes"

decision := false if case == "no"

# Allows: all that an allow can do to a request.

decision := {"allowed": true, "headers": {"x-tenant": "t1", "X-Debug": ["on", "more"]}} if case == "sets-headers"

decision := {
	"allowed": true,
	"headers": [{"x-tenant": "t2"}, {"accept-language": "de"}],
	"request_headers_to_remove": ["x-debug", "authorization"],
} if {
	case == "sets-and-removes-headers"
}

decision := {
	"allowed": true,
	"response_headers_to_add": {"x-policy": ["was", "here"], "cache-control": "no-store", "set-cookie": ["a=1", "b=2"]},
} if {
	case == "adds-response-headers"
}

decision := {
	"allowed": true,
	"query_parameters_to_set": {"tenant": "t1", "page": ["2"]},
	"query_parameters_to_remove": ["debug"],
} if {
	case == "changes-the-query"
}

decision := {"allowed": true, "dynamic_metadata": {"tier": "gold", "client_id": "forged", "deep": {"n": 1}}} if case == "adds-metadata"

# Denials.

decision := {"allowed": false, "reason": "quota_used_up", "http_status": 429, "headers": {"retry-after": "7"}} if case == "quota"

decision := {"allowed": false, "reason": "kept_inside"} if case == "unlisted-reason"

decision := {"allowed": false, "scope": "orders/admin orders/write"} if case == "scope"

decision := {
	"allowed": false,
	"http_status": 302,
	"headers": {"location": "https://login.example.com/", "content-type": "text/html", "set-cookie": ["a=1", "b=2"]},
	"body": "<p>Sign in</p>",
} if {
	case == "own-body"
}

decision := {"allowed": false, "body": ""} if case == "empty-body"

# Denies whatever can be read of the query and the body.
decision := {"allowed": false, "http_status": 409} if {
	case == "reads"
	is_array([input.parsed_query, input.parsed_body, input.truncated_body])
}

# Faults.

decision := true if case == "conflict"

decision := false if case == "conflict"

decision := {"allowed": true, "colour": "green"} if case == "unknown-key"

decision := {"allowed": "true"} if case == "wrong-type"

decision := {"allowed": true, "headers": {"X_Auth-Client.Id": "forged"}} if case == "identity-header"

decision := {"allowed": true, "request_headers_to_remove": ["x-auth-client-id"]} if case == "identity-header-removed"

decision := {"allowed": false, "headers": {"x-auth-client-id": "forged"}} if case == "identity-header-in-answer"

decision := {"allowed": true, "headers": {":path": "/admin"}} if case == "pseudo-header"

decision := {"allowed": true, "headers": {"host": "admin.example.com"}} if case == "host-header"

decision := {"allowed": true, "headers": {"x-unlisted": "1"}} if case == "unlisted-header"

decision := {"allowed": true, "headers": {"x-tenant": "a\r\nx-auth-client-id: forged"}} if case == "line-break"

decision := {"allowed": true, "request_headers_to_remove": ["x-tenant"], "headers": {"x-tenant": "1"}} if case == "set-and-removed"

decision := {"allowed": true, "query_parameters_to_set": {"a": "b&c=d"}} if case == "query-injection"

decision := {"allowed": false, "http_status": 200} if case == "denial-with-200"

decision := {"allowed": false, "http_status": 304} if case == "denial-with-304"

decision := ["allowed"] if case == "list"

decision := {"allowed": true, "dynamic_metadata": {"long": sprintf("%040000d", [1])}} if case == "too-long"

# A hundred million steps: longer than any timeout here.
decision := true if {
	case == "slow"
	some i in numbers.range(1, 10000)
	some j in numbers.range(1, 10000)
	i * j == -1
}
