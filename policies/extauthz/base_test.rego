package extauthz.base_test

import data.extauthz.base

# What is accepted; every test changes one thing of it.
route := {
	"name": "GET /orders/{id}",
	"hosts": [],
	"methods": ["GET"],
	"path": "/orders/{id}",
	"params": {"id": "7"},
	"pools": [],
	"scopes": {"all": [], "any": ["orders/read", "orders/admin"]},
	"clients": [],
	"any_client": false,
	"public": false,
}

token := {
	"client_id": "7a8b9c0d1e2f3g4h5i6j7k8l9m",
	"client_name": "orders-batch",
	"pool": "main",
	"issuer": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI",
	"subject": "7a8b9c0d1e2f3g4h5i6j7k8l9m",
	"token_id": "3c1d6a52-0000-4000-8000-000000000000",
	"token_use": "access",
	"scopes": ["orders/read"],
	"claims": {},
}

# on is the decision on the accepted request with some keys of route and token replaced.
on(route_changes, token_changes) := answer if {
	answer := base.decision with input.route as object.union(route, route_changes)
		with input.token as object.union(token, token_changes)
}

denied(reason) := {"allowed": false, "reason": reason}

scope_missing(scope) := {"allowed": false, "reason": "insufficient_scope", "scope": scope}

test_accepted if on({}, {}) == {"allowed": true}

# No route, no token.

test_no_route if {
	base.decision == denied("no_route") with input as {"token": token}
}

test_no_route_and_no_token if {
	base.decision == denied("no_route") with input as {}
}

test_no_token if {
	base.decision == denied("policy_denied") with input as {"route": route}
}

test_public_needs_no_token if {
	public := object.union(route, {"public": true, "scopes": {"all": [], "any": []}})
	base.decision == {"allowed": true} with input as {"route": public}
}

test_public_takes_a_token_too if {
	on({"public": true, "scopes": {"all": [], "any": []}}, {}) == {"allowed": true}
}

# Pools.

test_pool_listed if on({"pools": ["other", "main"]}, {}) == {"allowed": true}

test_pool_not_listed if on({"pools": ["other"]}, {}) == denied("client_not_allowed")

test_pool_unknown if on({"pools": ["main"]}, {"pool": ""}) == denied("client_not_allowed")

# Clients.

test_client_listed_and_scope_held if {
	on({"clients": ["billing", "orders-batch"]}, {}) == {"allowed": true}
}

test_client_listed_is_enough_without_scopes if {
	on({"clients": ["orders-batch"], "scopes": {"all": [], "any": []}}, {"scopes": []}) == {"allowed": true}
}

test_client_not_listed if on({"clients": ["billing"]}, {}) == denied("client_not_allowed")

test_client_without_a_name if {
	on({"clients": ["billing"]}, {"client_name": ""}) == denied("client_not_allowed")
}

test_client_is_asked_before_scopes if {
	on({"clients": ["billing"]}, {"scopes": []}) == denied("client_not_allowed")
}

test_any_client if {
	on({"any_client": true, "scopes": {"all": [], "any": []}}, {"client_name": "", "scopes": []}) == {"allowed": true}
}

# A route that asks for nothing lets nobody in: what is not set is not "not checked".
test_route_that_asks_for_nothing if {
	on({"scopes": {"all": [], "any": []}}, {}) == denied("client_not_allowed")
}

# Scopes.

test_any_the_other_scope if on({}, {"scopes": ["orders/admin"]}) == {"allowed": true}

test_any_none_held if on({}, {"scopes": ["orders/write"]}) == scope_missing("orders/read")

test_any_no_scopes_at_all if on({}, {"scopes": []}) == scope_missing("orders/read")

test_scopes_are_compared_whole if {
	on({}, {"scopes": ["orders/readonly", "orders", "ORDERS/READ"]}) == scope_missing("orders/read")
}

test_all_held if {
	on({"scopes": {"all": ["a/x", "a/y"], "any": []}}, {"scopes": ["a/y", "b/z", "a/x"]}) == {"allowed": true}
}

test_all_one_missing if {
	on({"scopes": {"all": ["a/x", "a/y"], "any": []}}, {"scopes": ["a/x"]}) == scope_missing("a/x a/y")
}

test_all_and_any_held if {
	on({"scopes": {"all": ["a/x"], "any": ["b/y", "b/z"]}}, {"scopes": ["b/z", "a/x"]}) == {"allowed": true}
}

test_all_held_any_missing if {
	on({"scopes": {"all": ["a/x"], "any": ["b/y", "b/z"]}}, {"scopes": ["a/x"]}) == scope_missing("a/x b/y")
}

test_any_held_all_missing if {
	on({"scopes": {"all": ["a/x"], "any": ["b/y", "b/z"]}}, {"scopes": ["b/z"]}) == scope_missing("a/x")
}

# Half an input is no reason to allow.

test_empty_route if {
	base.decision == denied("client_not_allowed") with input as {"route": {}, "token": token}
}

test_empty_token if {
	base.decision == scope_missing("orders/read") with input as {"route": route, "token": {}}
}

test_route_without_scopes if {
	no_scopes := object.union(object.remove(route, ["scopes"]), {"any_client": true})
	base.decision == denied("policy_denied") with input as {"route": no_scopes, "token": token}
}
