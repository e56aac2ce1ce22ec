# The built-in policy: may this caller use this route?
#
# The route table says what a route asks for. The token was verified before this policy runs, so everything under
# input.token is true. Without a token there is no input.token; without a matching route there is no input.route.
#
# A policy of your own can use the answer and add to it: see docs/policy.md.
package extauthz.base

# The answer if nothing below gives one.
default decision := {"allowed": false, "reason": "policy_denied"}

# Read it as if, else if, else if: the first part whose body holds is the decision.
decision := denied("no_route") if {
	not input.route
} else := {"allowed": true} if {
	input.route.public
} else := denied("policy_denied") if {
	not input.token
} else := denied("client_not_allowed") if {
	not pool_accepted
} else := denied("client_not_allowed") if {
	not client_accepted
} else := scope_missing if {
	not scopes_suffice
} else := {"allowed": true} if {
	# Said once more, so that only a yes to every question allows.
	pool_accepted
	client_accepted
	scopes_suffice
}

denied(reason) := {"allowed": false, "reason": reason}

# The user pool that issued the token. A route names pools once there are several, because another pool can define a
# scope of the same name.
pool_accepted if count(input.route.pools) == 0

pool_accepted if input.token.pool in input.route.pools

# The app client. A route may list clients by name, say that any client will do, or leave the choice to its scopes.
client_accepted if input.route.any_client

client_accepted if input.token.client_name in input.route.clients

client_accepted if {
	count(input.route.clients) == 0
	count(input.route.scopes.all) + count(input.route.scopes.any) > 0
}

# The scopes: each one of "all", and at least one of "any" if there are some.
scopes_suffice if {
	every scope in input.route.scopes.all {
		scope in input.token.scopes
	}
	any_scope_held
}

any_scope_held if count(input.route.scopes.any) == 0

any_scope_held if {
	some scope in input.route.scopes.any
	scope in input.token.scopes
}

# The denial tells the caller which scopes to ask for: each one of "all", and the first of "any" if the token holds
# none of them. (So list the least powerful first.)
scope_missing := {
	"allowed": false,
	"reason": "insufficient_scope",
	"scope": concat(" ", array.concat(input.route.scopes.all, first_of_any)),
}

first_of_any := [] if any_scope_held

first_of_any := [input.route.scopes.any[0]] if not any_scope_held
