package policy

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// maxInputDepth bounds the nesting of a value. It is what encoding/json takes at most, so that whatever that decoded
// passes, and far from what would exhaust a goroutine's stack.
const maxInputDepth = 10_000

// maxNumberDigits bounds the digits and the decimal exponent of a number. A float64 needs 309 of them. Comparing two
// numbers with an exponent of 16000 takes OPA 0.1 ms and notices no cancellation, so that one "x in body.list" on a
// list of such numbers would hold a CPU for seconds.
const maxNumberDigits = 1000

// A converter makes Rego values of Go values, and keeps the first error.
type converter struct {
	err *InputError
	// goFloats writes a float64 the shortest way, 1.79e+09 for 1790000000, as OPA does and its policies may have come to
	// rely on.
	goFloats bool
}

// object converts a map; a nil one is an empty object.
func (c *converter) object(field string, m map[string]any) ast.Value {
	return c.convert(field, m, 0)
}

// any converts what encoding/json makes of JSON, and Go's own numbers.
func (c *converter) any(field string, x any) ast.Value {
	return c.convert(field, x, 0)
}

func (c *converter) convert(field string, x any, depth int) ast.Value {
	if depth > maxInputDepth {
		return c.fail(field, "a deeper nesting", fmt.Sprintf("at most %d levels", maxInputDepth))
	}
	switch x := x.(type) {
	case nil:
		return ast.NullValue
	case bool:
		return ast.Boolean(x)
	case string:
		return ast.String(x)
	case json.Number:
		return c.number(field, string(x))
	case float64:
		return c.float(field, x)
	case int:
		return ast.Number(strconv.Itoa(x))
	case int32:
		return ast.Number(strconv.FormatInt(int64(x), 10))
	case int64:
		return ast.Number(strconv.FormatInt(x, 10))
	case uint32:
		return ast.Number(strconv.FormatUint(uint64(x), 10))
	case uint64:
		return ast.Number(strconv.FormatUint(x, 10))
	case []any:
		terms := newTerms(len(x))
		for i, e := range x {
			terms[i].Value = c.convert(field, e, depth+1)
		}
		return ast.NewArray(terms...)
	case map[string]any:
		if crowded(x) {
			return c.fail(field, "an object with names made to collide", "names of another origin")
		}
		return newObject(x, func(e any) ast.Value { return c.convert(field, e, depth+1) })
	case []string:
		return stringArray(x)
	case map[string]string:
		return stringMap(x)
	case map[string][]string:
		if crowded(x) {
			return c.fail(field, "an object with names made to collide", "names of another origin")
		}
		return stringLists(x)
	default:
		return c.fail(field, fmt.Sprintf("a %T", x), "a value that JSON has a form for")
	}
}

// float writes whole numbers in full: Go's shortest form of 1790000000 is 1.79e+09, and sprintf("%d") of that is an
// error text.
func (c *converter) float(field string, f float64) ast.Value {
	const exact = 1 << 53
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return c.fail(field, "a number that is not finite", "a finite one")
	case !c.goFloats && f == math.Trunc(f) && math.Abs(f) <= exact:
		return ast.Number(strconv.FormatInt(int64(f), 10))
	default:
		return ast.Number(strconv.FormatFloat(f, 'g', -1, 64))
	}
}

// number takes the text of a JSON number as it is.
func (c *converter) number(field, text string) ast.Value {
	if !isJSONNumber(text) {
		return c.fail(field, "a json.Number that is no number", "a number")
	}
	mantissa, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	if exponent == "" {
		exponent = "0"
	}
	if e, err := strconv.Atoi(exponent); err != nil || len(mantissa) > maxNumberDigits || e > maxNumberDigits || e < -maxNumberDigits {
		return c.fail(field, "a number of too many digits", fmt.Sprintf("at most %d digits and an exponent of at most %[1]d", maxNumberDigits))
	}
	return ast.Number(text)
}

// isJSONNumber reports whether text is a number with nothing around it.
func isJSONNumber(text string) bool {
	digit := func(c byte) bool { return '0' <= c && c <= '9' }
	return text != "" && (text[0] == '-' || digit(text[0])) && digit(text[len(text)-1]) && json.Valid([]byte(text))
}

func (c *converter) fail(field, got, want string) ast.Value {
	if c.err == nil {
		c.err = &InputError{Field: field, Got: got, Want: want}
	}
	return ast.NullValue
}

func stringArray(list []string) ast.Value {
	terms := newTerms(len(list))
	for i, s := range list {
		terms[i].Value = ast.String(s)
	}
	return ast.NewArray(terms...)
}

func stringMap(m map[string]string) ast.Value {
	return newObject(m, func(s string) ast.Value { return ast.String(s) })
}

func stringLists(m map[string][]string) ast.Value {
	return newObject(m, stringArray)
}

func newObject[T any](m map[string]T, value func(T) ast.Value) ast.Value {
	terms := newTerms(2 * len(m))
	items := make([][2]*ast.Term, 0, len(m))
	for k, v := range m {
		terms[0].Value, terms[1].Value = ast.String(k), value(v)
		items = append(items, [2]*ast.Term{terms[0], terms[1]})
		terms = terms[2:]
	}
	return ast.NewObject(items...)
}

// Names that hash alike, or close to each other, make OPA's objects and sets as slow as lists, and a builtin function on
// them (object.keys) notices no cancellation: 20000 of them hold a CPU for ten seconds. The hash has no seed, so whoever
// writes a body can find such names. By chance, not even two of a million names share the upper bits.
const (
	fewNames     = 256 // that need no look
	mostCrowded  = 8
	crowdingBits = 20
)

// crowded reports whether names of an object were made to collide.
func crowded[T any](m map[string]T) bool {
	if len(m) <= fewNames {
		return false
	}
	seen := make(map[int]uint8, len(m))
	for name := range m {
		at := ast.String(name).Hash() >> crowdingBits
		if seen[at]++; seen[at] > mostCrowded {
			return true
		}
	}
	return false
}

// newTerms allocates n terms at once.
func newTerms(n int) []*ast.Term {
	terms := make([]ast.Term, n)
	pointers := make([]*ast.Term, n)
	for i := range terms {
		pointers[i] = &terms[i]
	}
	return pointers
}
