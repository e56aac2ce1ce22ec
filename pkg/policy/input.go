package policy

import (
	"encoding/json"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Input is what a policy sees as input. Names that OPA-Envoy has mean the same here, so its documentation carries over.
// Policies depend on the JSON form: fields are added, never renamed. The comments of the fields are the tables in
// docs/policy-input.md.
//
// A nil slice or map is an empty one to the policy. A nil Token or Route is absent, so that "not input.token" holds
// without a token, as is usual in Rego; it is never null.
type Input struct {
	// Attributes are what Envoy sent: part of `envoy.service.auth.v3.AttributeContext`, with the names that protobuf's JSON form has. The Authorization header is left out.
	Attributes map[string]any `json:"attributes"`
	// ParsedPath is the canonical path, split at each slash and then percent-decoded: `/orders/7` is `["orders", "7"]`, `/` is `[""]`.
	ParsedPath []string `json:"parsed_path"`
	// ParsedQuery are the query parameters, decoded. A parameter that is given twice has two values.
	ParsedQuery map[string][]string `json:"parsed_query"`
	// ParsedBody is the body by its content-type: any JSON value, or an object of lists of strings for a form. Null without a body, or with one that was cut or is of another type.
	ParsedBody any `json:"parsed_body"`
	// TruncatedBody is true if Envoy sent only a part of the body.
	TruncatedBody bool `json:"truncated_body"`
	// SourcePrincipal is the identity of the peer by its certificate, such as `spiffe://cluster.local/ns/shop/sa/web`. Absent without one.
	SourcePrincipal string `json:"source_principal,omitempty"`
	// Canonical are the host and path that the route was found by. What was sent is in `input.attributes.request.http`.
	Canonical Canonical `json:"canonical"`
	// Token is the verified token. Absent without one, which only a public route lets pass.
	Token *Token `json:"token,omitempty"`
	// Route is the route that matched. Absent if none did.
	Route *Route `json:"route,omitempty"`
	// Context is what Envoy's configuration and its other filters say about the request.
	Context Context `json:"context"`

	// Complete, if set, fills in what costs something to make, such as a parsed body. [Engine.Decide] calls it once, in the
	// caller's goroutine, with a function that tells whether the policy may read a field, named as in JSON, or one of its
	// fields, such as "token.claims". An error ends the decision: Decide returns it, wrapped. It is no part of what the
	// policy sees.
	Complete func(in *Input, reads func(field string) bool) error `json:"-"`
	// Asked, if set, is told which policy is about to decide, whatever comes of it. [Engine.Decide] calls it once, before
	// Complete, in the caller's goroutine. It is no part of what the policy sees.
	Asked func(p Policy) `json:"-"`
}

// Canonical is a host and a path in the one spelling that everybody compares.
type Canonical struct {
	// Host is the host in lower case, without port and trailing dot.
	Host string `json:"host"`
	// Path is the path without the query, unreserved characters decoded. It never holds dot segments or empty inner segments.
	Path string `json:"path"`
}

// Token is a verified token.
type Token struct {
	// ClientID is the `client_id` claim: the app client.
	ClientID string `json:"client_id"`
	// ClientName is the name that the configuration gives the app client. Empty if it has none.
	ClientName string `json:"client_name"`
	// Pool is the name that the configuration gives the user pool.
	Pool string `json:"pool"`
	// Issuer is the `iss` claim.
	Issuer string `json:"issuer"`
	// Subject is the `sub` claim. With the client credentials grant it is the client id.
	Subject string `json:"subject"`
	// TokenID is the `jti` claim.
	TokenID string `json:"token_id"`
	// TokenUse is the `token_use` claim: `access`, or `id` where the pool accepts ID tokens.
	TokenUse string `json:"token_use"`
	// Scopes are the scopes of the `scope` claim, each in full: `resource-server/scope`.
	Scopes []string `json:"scopes"`
	// Claims are all claims, as they are in the token.
	Claims map[string]any `json:"claims"`
}

// Route is an entry of the route table, with what the request's path gave its parameters.
type Route struct {
	// Name is the route's name.
	Name string `json:"name"`
	// Hosts are the hosts it is for. Empty: all.
	Hosts []string `json:"hosts"`
	// Methods are the methods it is for. `["*"]`: all.
	Methods []string `json:"methods"`
	// Path is the path template, such as `/orders/{id}`.
	Path string `json:"path"`
	// Params are the segments that the template names, decoded: `{"id": "7"}`.
	Params map[string]string `json:"params"`
	// Pools are the user pools whose tokens it accepts. Empty: the only one there is.
	Pools []string `json:"pools"`
	// Scopes are the scopes it asks for.
	Scopes Scopes `json:"scopes"`
	// Clients are the names of the app clients that may use it. Empty: see `any_client` and `scopes`.
	Clients []string `json:"clients"`
	// AnyClient is true if any client of the pools may use it.
	AnyClient bool `json:"any_client"`
	// Public is true if it needs no token.
	Public bool `json:"public"`
}

// Scopes are the scopes that a route asks for.
type Scopes struct {
	// All are scopes that a token must have all of.
	All []string `json:"all"`
	// Any are scopes of which a token must have at least one, if there are some.
	Any []string `json:"any"`
}

// Context is what Envoy's configuration and its other filters say about a request.
type Context struct {
	// Extensions are the `context_extensions` of the ext_authz filter, per route.
	Extensions map[string]string `json:"extensions"`
	// Metadata is the dynamic metadata of Envoy's filters, by filter name.
	Metadata map[string]any `json:"metadata"`
	// RouteMetadata is the metadata of Envoy's route, by filter name.
	RouteMetadata map[string]any `json:"route_metadata"`
}

// MarshalJSON returns the JSON form of what the policy sees. Unmarshalling it gives the same Input to a policy.
func (in Input) MarshalJSON() ([]byte, error) {
	v, err := (&in).value()
	if err != nil {
		return nil, err
	}
	x, err := ast.JSON(v)
	if err != nil {
		return nil, err
	}
	return json.Marshal(x)
}

// value builds what the policy sees. It goes without encoding/json, which would cost more than a typical evaluation.
func (in *Input) value() (ast.Value, error) {
	if in == nil {
		return nil, &InputError{Got: "no input", Want: "one"}
	}
	var c converter
	fields := make([][2]*ast.Term, 0, 10)
	add := func(key *ast.Term, value ast.Value) {
		fields = append(fields, [2]*ast.Term{key, ast.NewTerm(value)})
	}

	add(keyAttributes, c.object("attributes", in.Attributes))
	add(keyParsedPath, stringArray(in.ParsedPath))
	add(keyParsedQuery, stringLists(in.ParsedQuery))
	add(keyParsedBody, c.any("parsed_body", in.ParsedBody))
	add(keyTruncatedBody, ast.Boolean(in.TruncatedBody))
	if in.SourcePrincipal != "" {
		add(keySourcePrincipal, ast.String(in.SourcePrincipal))
	}
	fields = append(fields, in.own(&c)...)
	if c.err != nil {
		return nil, c.err
	}
	return ast.NewObject(fields...), nil
}

// own are the fields that OPA-Envoy does not have.
func (in *Input) own(c *converter) [][2]*ast.Term {
	fields := make([][2]*ast.Term, 0, 4)
	add := func(key *ast.Term, value ast.Value) {
		fields = append(fields, [2]*ast.Term{key, ast.NewTerm(value)})
	}
	add(keyCanonical, ast.NewObject(
		ast.Item(keyHost, ast.StringTerm(in.Canonical.Host)),
		ast.Item(keyPath, ast.StringTerm(in.Canonical.Path)),
	))
	if in.Token != nil {
		add(keyToken, in.Token.value(c))
	}
	if in.Route != nil {
		add(keyRoute, in.Route.value())
	}
	add(keyContext, ast.NewObject(
		ast.Item(keyExtensions, ast.NewTerm(stringMap(in.Context.Extensions))),
		ast.Item(keyMetadata, ast.NewTerm(c.object("context.metadata", in.Context.Metadata))),
		ast.Item(keyRouteMetadata, ast.NewTerm(c.object("context.route_metadata", in.Context.RouteMetadata))),
	))
	return fields
}

func (t *Token) value(c *converter) ast.Value {
	return ast.NewObject(
		ast.Item(keyClientID, ast.StringTerm(t.ClientID)),
		ast.Item(keyClientName, ast.StringTerm(t.ClientName)),
		ast.Item(keyPool, ast.StringTerm(t.Pool)),
		ast.Item(keyIssuer, ast.StringTerm(t.Issuer)),
		ast.Item(keySubject, ast.StringTerm(t.Subject)),
		ast.Item(keyTokenID, ast.StringTerm(t.TokenID)),
		ast.Item(keyTokenUse, ast.StringTerm(t.TokenUse)),
		ast.Item(keyScopes, ast.NewTerm(stringArray(t.Scopes))),
		ast.Item(keyClaims, ast.NewTerm(c.object("token.claims", t.Claims))),
	)
}

func (r *Route) value() ast.Value {
	return ast.NewObject(
		ast.Item(keyName, ast.StringTerm(r.Name)),
		ast.Item(keyHosts, ast.NewTerm(stringArray(r.Hosts))),
		ast.Item(keyMethods, ast.NewTerm(stringArray(r.Methods))),
		ast.Item(keyPath, ast.StringTerm(r.Path)),
		ast.Item(keyParams, ast.NewTerm(stringMap(r.Params))),
		ast.Item(keyPools, ast.NewTerm(stringArray(r.Pools))),
		ast.Item(keyScopes, ast.ObjectTerm(
			ast.Item(keyAll, ast.NewTerm(stringArray(r.Scopes.All))),
			ast.Item(keyAny, ast.NewTerm(stringArray(r.Scopes.Any))),
		)),
		ast.Item(keyClients, ast.NewTerm(stringArray(r.Clients))),
		ast.Item(keyAnyClient, ast.BooleanTerm(r.AnyClient)),
		ast.Item(keyPublic, ast.BooleanTerm(r.Public)),
	)
}

// The keys of the input document, made once. A test holds them equal to the json tags above.
var (
	keyAll             = ast.StringTerm("all")
	keyAny             = ast.StringTerm("any")
	keyAnyClient       = ast.StringTerm("any_client")
	keyAttributes      = ast.StringTerm("attributes")
	keyCanonical       = ast.StringTerm("canonical")
	keyClaims          = ast.StringTerm("claims")
	keyClientID        = ast.StringTerm("client_id")
	keyClientName      = ast.StringTerm("client_name")
	keyClients         = ast.StringTerm("clients")
	keyContext         = ast.StringTerm("context")
	keyExtensions      = ast.StringTerm("extensions")
	keyHost            = ast.StringTerm("host")
	keyHosts           = ast.StringTerm("hosts")
	keyIssuer          = ast.StringTerm("issuer")
	keyMetadata        = ast.StringTerm("metadata")
	keyMethods         = ast.StringTerm("methods")
	keyName            = ast.StringTerm("name")
	keyParams          = ast.StringTerm("params")
	keyParsedBody      = ast.StringTerm("parsed_body")
	keyParsedPath      = ast.StringTerm("parsed_path")
	keyParsedQuery     = ast.StringTerm("parsed_query")
	keyPath            = ast.StringTerm("path")
	keyPool            = ast.StringTerm("pool")
	keyPools           = ast.StringTerm("pools")
	keyPublic          = ast.StringTerm("public")
	keyRoute           = ast.StringTerm("route")
	keyRouteMetadata   = ast.StringTerm("route_metadata")
	keyScopes          = ast.StringTerm("scopes")
	keySourcePrincipal = ast.StringTerm("source_principal")
	keySubject         = ast.StringTerm("subject")
	keyToken           = ast.StringTerm("token")
	keyTokenID         = ast.StringTerm("token_id")
	keyTokenUse        = ast.StringTerm("token_use")
	keyTruncatedBody   = ast.StringTerm("truncated_body")
)
