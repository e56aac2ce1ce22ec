package config

import "regexp"

// A format is a set of valid texts that a field tag names.
type format struct {
	noun    string         // what a text of the format is, in the singular
	want    string         // completes "want …"
	pattern *regexp.Regexp // one that RE2 and ECMA 262 (JSON Schema) read alike; nil: any text
	fold    bool           // upper and lower case mean the same; kept in lower case
}

var formats = map[string]format{
	"text":     {noun: "text", want: "text"},
	"path":     {noun: "path", want: "the path of a file or directory"},
	"claim":    {noun: "claim", want: "the name of a claim, such as custom:tier"},
	"audience": {noun: "audience", want: "a value of aud, such as https://api.example.com"},
	// These three have rules of their own in internal/route.
	"host":     {noun: "host", want: "a host such as api.example.com or *.example.com"},
	"method":   {noun: "method", want: "an HTTP method such as GET"},
	"template": {noun: "path template", want: "a path such as /orders/{id}"},
	// Each listener has rules of its own, see (*decoder).listen.
	"address": {noun: "address", want: "host:port"},
	"url": {
		noun:    "URL",
		want:    "an https URL",
		pattern: regexp.MustCompile(`^https?://`),
	},
	"name": {
		noun:    "name",
		want:    "a name of letters, digits, '.', '_' and '-', beginning with a letter or digit, at most 63 characters",
		pattern: regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`),
	},
	"clientID": {
		noun:    "client id",
		want:    "an app client id such as 7a8b9c0d1e2f3g4h5i6j7k8",
		pattern: regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._~+:@/-]{0,127}$`),
	},
	"time": {
		noun:    "time",
		want:    "a date and time of RFC 3339 such as 2026-11-21T10:00:00Z",
		pattern: regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$`),
	},
	"region": {
		noun:    "Region",
		want:    "an AWS Region such as eu-west-1",
		pattern: regexp.MustCompile(`^[a-z]{2,8}(-[a-z]+)+-[0-9]{1,2}$`),
	},
	// [\w-]+_[0-9a-zA-Z]+, at most 55 characters (Amazon Cognito API Reference, UserPoolIdType).
	"userPoolID": {
		noun:    "user pool id",
		want:    "a user pool id such as eu-west-1_AbCdEfGhI",
		pattern: regexp.MustCompile(`^[A-Za-z0-9_-]{1,44}_[A-Za-z0-9]{1,54}$`),
	},
	// What Cognito makes of a name for its own domain, or the name of a custom one.
	"domain": {
		noun:    "domain",
		want:    "a domain prefix such as my-team, or a domain such as auth.example.com",
		pattern: regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`),
	},
	// No lower-case letters: the secrets that Cognito makes have them, and must not be taken for a name.
	"variable": {
		noun:    "variable",
		want:    "the name of an environment variable, in upper case, such as ORDERS_CLIENT_SECRET",
		pattern: regexp.MustCompile(`^[A-Z_][A-Z0-9_]*$`),
	},
	// [\w-]+:[0-9a-f-]+, at most 55 characters (Amazon Cognito Federated Identities API Reference, IdentityPoolId).
	"identityPoolID": {
		noun:    "identity pool id",
		want:    "an identity pool id such as eu-west-1:01234567-89ab-cdef-0123-456789abcdef",
		pattern: regexp.MustCompile(`^[A-Za-z0-9_-]{1,20}:[0-9a-f-]{1,53}$`),
	},
	"roleARN": {
		noun:    "role",
		want:    "the ARN of an IAM role such as arn:aws:iam::123456789012:role/orders-reader",
		pattern: regexp.MustCompile(`^arn:[a-z-]+:iam::[0-9]{12}:role/[!-~]+$`),
	},
	"metadata": {
		noun:    "name",
		want:    "a name of letters, digits, '_', '-' and '.'",
		pattern: regexp.MustCompile(`^[A-Za-z0-9_.-]{1,128}$`),
	},
	// scope-token.
	"scope": {
		noun:    "scope",
		want:    `a scope such as orders/read: printable ASCII without space, '"' and '\' (RFC 6749 section 3.3)`,
		pattern: regexp.MustCompile(`^[!#-\[\]-~]+$`),
	},
	// field-name (RFC 9110 section 5.1).
	"header": {
		noun:    "header",
		want:    "a header name such as x-tenant",
		pattern: regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"),
		fold:    true,
	},
	"headerPrefix": {
		noun:    "prefix",
		want:    "lower-case letters, digits and '-', beginning with a letter and ending with '-', at most 40 characters, such as x-auth-",
		pattern: regexp.MustCompile(`^[a-z][a-z0-9-]{0,38}-$`),
	},
	"headerSuffix": {
		noun:    "suffix",
		want:    "the end of a header name, of lower-case letters, digits and single '-', such as tier or team-name",
		pattern: regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`),
	},
	"reason": {
		noun:    "reason",
		want:    "lower-case letters, digits and '_', at most 64, such as quota_exceeded",
		pattern: regexp.MustCompile(`^[a-z0-9_]{1,64}$`),
	},
	"rule": {
		noun:    "rule",
		want:    "data., a package and a rule, such as data.extauthz.decision",
		pattern: regexp.MustCompile(`^data(\.[A-Za-z_][A-Za-z0-9_]*){2,}$`),
	},
	"builtin": {
		noun:    "function",
		want:    "the name of a Rego built-in function such as http.send",
		pattern: regexp.MustCompile(`^[a-z0-9_]+(\.[a-z0-9_]+)*$`),
	},
	"realm": {
		noun:    "realm",
		want:    `1 to 128 printable ASCII characters without '"' and '\'`,
		pattern: regexp.MustCompile(`^[ !#-\[\]-~]{1,128}$`),
	},
	"logField": {
		noun:    "field",
		want:    "headers.NAME, query.NAME or claims.NAME",
		pattern: regexp.MustCompile(`^(headers|query|claims)\..+$`),
	},
}

// isValid reports whether a text is of a format.
func isValid(name, text string) bool {
	p := formats[name].pattern
	return p == nil || p.MatchString(text)
}
