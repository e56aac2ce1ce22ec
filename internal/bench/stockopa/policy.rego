package envoy.authz

request := input.attributes.request.http

token := t if [_, t] := split(request.headers.authorization, " ")

verified := io.jwt.decode_verify(token, {"cert": data.jwks, "alg": "RS256", "iss": data.issuer})

claims := verified[2] if {
	verified[0]
	verified[2].token_use == "access"
}

scopes := split(claims.scope, " ")

default decision := {"allowed": false, "http_status": 401}

decision := {"allowed": true, "headers": headers} if {
	client_allowed
	route_allowed
} else := {"allowed": false, "http_status": 403} if claims

client_allowed if data.clients[claims.client_id]

route_allowed if {
	request.method == "GET"
	input.parsed_path[0] == "orders"
	count(input.parsed_path) == 2
	some scope in scopes
	scope in {"orders/read", "orders/admin"}
}

route_allowed if {
	request.method == "POST"
	input.parsed_path == ["orders"]
	"orders/write" in scopes
}

headers := {
	"x-auth-client-id": claims.client_id,
	"x-auth-client-name": data.clients[claims.client_id],
	"x-auth-scopes": claims.scope,
	"x-auth-issuer": claims.iss,
}
