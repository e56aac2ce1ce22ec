package policy

import (
	"fmt"
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// leftOut are the builtin functions that a policy may not use unless Config.AllowBuiltins names them, and why.
//
// All of OPA v1.22's builtins were called with the worst arguments that could be thought of. Most end within
// milliseconds on a megabyte of input, or notice cancellation. A function is left out if a short or a client-chosen
// argument can hold a CPU for good or end the process, or if it reads what is outside the input. builtins_test.go
// repeats the calls, so that a new OPA with new functions is tried as well.
var leftOut = map[string]string{
	"http.send":          "talks to the network",
	"net.lookup_ip_addr": "talks to the network",
	"opa.runtime":        "reads the process environment",

	"json.match_schema":    "a schema that refers to itself overflows the stack, which ends the process",
	"json.verify_schema":   "goes with json.match_schema",
	"graphql.is_valid":     "deeply nested text overflows the stack, which ends the process",
	"graphql.parse":        "deeply nested text overflows the stack, which ends the process",
	"graphql.parse_query":  "deeply nested text overflows the stack, which ends the process",
	"graphql.parse_schema": "goes with graphql.parse",

	"graphql.parse_and_verify": "deeply nested text overflows the stack, which ends the process",
	"graphql.schema_is_valid":  "goes with graphql.parse",

	"bits.lsh":                "makes numbers of any size and cannot be cancelled",
	"glob.match":              "takes time exponential in the number of *, and cannot be cancelled",
	"graph.reachable_paths":   "takes exponential time and cannot be cancelled",
	"product":                 "makes numbers of any size and cannot be cancelled",
	"rego.parse_module":       "takes quadratic time and cannot be cancelled",
	"strings.render_template": "runs loops of the template and cannot be cancelled",

	"io.jwt.decode":          "the token is verified already: use input.token",
	"io.jwt.decode_verify":   "the token is verified already: use input.token",
	"io.jwt.encode_sign":     "a policy signs nothing",
	"io.jwt.encode_sign_raw": "a policy signs nothing",
	"io.jwt.verify_eddsa":    "the token is verified already: use input.token",
	"io.jwt.verify_es256":    "the token is verified already: use input.token",
	"io.jwt.verify_es384":    "the token is verified already: use input.token",
	"io.jwt.verify_es512":    "the token is verified already: use input.token",
	"io.jwt.verify_hs256":    "the token is verified already: use input.token",
	"io.jwt.verify_hs384":    "the token is verified already: use input.token",
	"io.jwt.verify_hs512":    "the token is verified already: use input.token",
	"io.jwt.verify_ps256":    "the token is verified already: use input.token",
	"io.jwt.verify_ps384":    "the token is verified already: use input.token",
	"io.jwt.verify_ps512":    "the token is verified already: use input.token",
	"io.jwt.verify_rs256":    "the token is verified already: use input.token",
	"io.jwt.verify_rs384":    "the token is verified already: use input.token",
	"io.jwt.verify_rs512":    "the token is verified already: use input.token",
}

// LeftOutBuiltins returns the names of the builtin functions that policies may not use by default, each with the reason.
// Config.AllowBuiltins allows them one by one, at the risk that the reason names.
func LeftOutBuiltins() map[string]string {
	return maps.Clone(leftOut)
}

// capabilities returns what the compiler lets policies use.
func capabilities(allow []string) (*ast.Capabilities, error) {
	caps := ast.CapabilitiesForThisVersion()
	known := func(name string) bool {
		return slices.ContainsFunc(caps.Builtins, func(b *ast.Builtin) bool { return b.Name == name })
	}
	for _, name := range allow {
		if !known(name) {
			return nil, fmt.Errorf("AllowBuiltins holds %q, which is no builtin function of this OPA", name)
		}
	}

	caps.Builtins = slices.DeleteFunc(caps.Builtins, func(b *ast.Builtin) bool {
		_, out := leftOut[b.Name]
		return out && !slices.Contains(allow, b.Name)
	})
	// A schema may name others by URL, which the compiler would fetch: from no host. Functions that talk to the network
	// are bound by the same list, so whoever allows one of them allows every host.
	if !slices.Contains(allow, "http.send") && !slices.Contains(allow, "net.lookup_ip_addr") {
		caps.AllowNet = []string{}
	}
	return caps, nil
}
