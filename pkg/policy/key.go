package policy

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"sync"
)

// maxKeyBytes bounds what a decision is remembered by. What is longer is seldom seen twice.
const maxKeyBytes = 4 << 10

// A keyWriter writes what a policy reads of an [Input] so that two inputs that differ in it never come to the same: each
// value with its type, what varies in length with its length, members in order of their names. It makes no Rego values,
// which is what a cache saves.
type keyWriter struct {
	buf    []byte
	names  []string // of the objects that are being written
	failed bool     // too long, or a type that has no form
	exists bool     // write whether there is a value, and not which
}

// The types of what is written.
const (
	tagAbsent  = 'A' // then how far the way to it is there, and what is there
	tagPresent = 'P'
	tagNull    = 'n'
	tagFalse   = 'f'
	tagTrue    = 't'
	tagText    = 's'
	tagNumber  = 'N' // as text
	tagFloat   = 'd'
	tagInt     = 'i'
	tagUint    = 'u'
	tagArray   = 'a'
	tagObject  = 'o'
)

var keyWriters = sync.Pool{New: func() any { return &keyWriter{buf: make([]byte, 0, 512)} }}

// release lets go of what was written.
func (w *keyWriter) release() {
	w.buf, w.failed, w.exists = w.buf[:0], false, false
	keyWriters.Put(w)
}

// A keyPart writes one thing that the policy reads.
type keyPart struct {
	write  func(w *keyWriter, in *Input, rest []string)
	rest   []string // names below
	exists bool
}

func (w *keyWriter) parts(parts []keyPart, in *Input) bool {
	for _, p := range parts {
		w.exists = p.exists
		p.write(w, in, p.rest)
		if w.failed || len(w.buf) > maxKeyBytes {
			return false
		}
	}
	return true
}

// absent writes that there is no value: depth is how many names of the way to it are there, and kind what the last is.
func (w *keyWriter) absent(depth int, kind byte) {
	w.buf = binary.AppendUvarint(append(w.buf, tagAbsent, kind), uint64(depth))
}

func (w *keyWriter) tag(tag byte) bool {
	if w.exists {
		tag = tagPresent
	}
	w.buf = append(w.buf, tag)
	return !w.exists
}

func (w *keyWriter) flag(b bool) {
	if b {
		w.tag(tagTrue)
	} else {
		w.tag(tagFalse)
	}
}

func (w *keyWriter) text(s string) {
	if w.tag(tagText) {
		w.raw(s)
	}
}

// raw writes s so that its end is known. What is too long is not copied.
func (w *keyWriter) raw(s string) {
	if w.room(len(s)) {
		w.buf = append(binary.AppendUvarint(w.buf, uint64(len(s))), s...)
	}
}

// room reports whether n more bytes, or n more values, fit.
func (w *keyWriter) room(n int) bool {
	if n > maxKeyBytes-len(w.buf) {
		w.failed = true
	}
	return !w.failed
}

// begin writes the head of an array or an object, and reports whether its n items are to follow.
func (w *keyWriter) begin(tag byte, n int) bool {
	if !w.tag(tag) || !w.room(n) {
		return false
	}
	w.buf = binary.AppendUvarint(w.buf, uint64(n))
	return true
}

func (w *keyWriter) texts(list []string) {
	if w.begin(tagArray, len(list)) {
		for _, s := range list {
			w.text(s)
		}
	}
}

func (w *keyWriter) any(x any) {
	switch x := x.(type) {
	case nil:
		w.tag(tagNull)
	case bool:
		w.flag(x)
	case string:
		w.text(x)
	case []any:
		if w.begin(tagArray, len(x)) {
			for i := 0; i < len(x) && !w.failed; i++ {
				w.any(x[i])
			}
		}
	case map[string]any:
		writeObject(w, x, (*keyWriter).any)
	case []string:
		w.texts(x)
	case map[string]string:
		writeObject(w, x, (*keyWriter).text)
	case map[string][]string:
		writeObject(w, x, (*keyWriter).texts)
	default:
		w.number(x)
	}
}

func (w *keyWriter) number(x any) {
	switch x := x.(type) {
	case json.Number:
		if w.tag(tagNumber) {
			w.raw(string(x))
		}
	case float64:
		if w.tag(tagFloat) {
			w.buf = binary.BigEndian.AppendUint64(w.buf, math.Float64bits(x))
		}
	case int:
		w.int(int64(x))
	case int32:
		w.int(int64(x))
	case int64:
		w.int(x)
	case uint32:
		w.uint(uint64(x))
	case uint64:
		w.uint(x)
	default:
		w.failed = true
	}
}

func (w *keyWriter) int(n int64) {
	if w.tag(tagInt) {
		w.buf = binary.AppendVarint(w.buf, n)
	}
}

func (w *keyWriter) uint(n uint64) {
	if w.tag(tagUint) {
		w.buf = binary.AppendUvarint(w.buf, n)
	}
}

func writeObject[T any](w *keyWriter, m map[string]T, value func(*keyWriter, T)) {
	if !w.begin(tagObject, len(m)) {
		return
	}
	start := len(w.names)
	for name := range m {
		w.names = append(w.names, name)
	}
	names := w.names[start:]
	slices.Sort(names)
	for _, name := range names {
		if w.failed {
			break
		}
		w.raw(name)
		value(w, m[name])
	}
	clear(names) // the pool is to keep no strings of requests
	w.names = w.names[:start]
}

// below writes what is below x at names; depth is how many names lead to x.
func (w *keyWriter) below(x any, names []string, depth int) {
	for i, name := range names {
		switch m := x.(type) {
		case map[string]any:
			next, ok := m[name]
			if !ok {
				w.absent(depth+i, tagObject)
				return
			}
			x = next
		case map[string]string:
			belowObject(w, m, names[i:], depth+i, (*keyWriter).text, tagText)
			return
		case map[string][]string:
			belowObject(w, m, names[i:], depth+i, (*keyWriter).texts, tagArray)
			return
		default:
			w.absent(depth+i, kindOf(x))
			return
		}
	}
	w.any(x)
}

// belowObject is below for an object of which no value has members.
func belowObject[T any](w *keyWriter, m map[string]T, names []string, depth int, value func(*keyWriter, T), kind byte) {
	if len(names) == 0 {
		writeObject(w, m, value)
		return
	}
	x, ok := m[names[0]]
	switch {
	case !ok:
		w.absent(depth, tagObject)
	case len(names) > 1:
		w.absent(depth+1, kind)
	default:
		value(w, x)
	}
}

// kindOf tells values apart that are no objects.
func kindOf(x any) byte {
	switch x.(type) {
	case nil:
		return tagNull
	case []any, []string:
		return tagArray
	case bool:
		return tagTrue
	case string:
		return tagText
	}
	return tagNumber
}

// A keyLeaf is a field of the [Input] that keys are made of.
type keyLeaf struct {
	path  string // as in JSON, with slashes
	write func(w *keyWriter, in *Input, rest []string)
}

// keyLeaves are all fields of an [Input] but those of its structs' names. A test holds them equal to the json tags.
var keyLeaves = []keyLeaf{
	{"attributes", func(w *keyWriter, in *Input, rest []string) { w.below(in.Attributes, rest, 1) }},
	{"parsed_path", func(w *keyWriter, in *Input, _ []string) { w.texts(in.ParsedPath) }},
	{"parsed_query", func(w *keyWriter, in *Input, rest []string) {
		belowObject(w, in.ParsedQuery, rest, 1, (*keyWriter).texts, tagArray)
	}},
	{"parsed_body", func(w *keyWriter, in *Input, rest []string) { w.below(in.ParsedBody, rest, 1) }},
	{"truncated_body", func(w *keyWriter, in *Input, _ []string) { w.flag(in.TruncatedBody) }},
	{"source_principal", func(w *keyWriter, in *Input, _ []string) {
		if in.SourcePrincipal == "" {
			w.absent(0, tagObject)
		} else {
			w.text(in.SourcePrincipal)
		}
	}},
	{"canonical/host", func(w *keyWriter, in *Input, _ []string) { w.text(in.Canonical.Host) }},
	{"canonical/path", func(w *keyWriter, in *Input, _ []string) { w.text(in.Canonical.Path) }},

	{"token/client_id", ofToken(func(w *keyWriter, t *Token, _ []string) { w.text(t.ClientID) })},
	{"token/client_name", ofToken(func(w *keyWriter, t *Token, _ []string) { w.text(t.ClientName) })},
	{"token/pool", ofToken(func(w *keyWriter, t *Token, _ []string) { w.text(t.Pool) })},
	{"token/issuer", ofToken(func(w *keyWriter, t *Token, _ []string) { w.text(t.Issuer) })},
	{"token/subject", ofToken(func(w *keyWriter, t *Token, _ []string) { w.text(t.Subject) })},
	{"token/token_id", ofToken(func(w *keyWriter, t *Token, _ []string) { w.text(t.TokenID) })},
	{"token/token_use", ofToken(func(w *keyWriter, t *Token, _ []string) { w.text(t.TokenUse) })},
	{"token/scopes", ofToken(func(w *keyWriter, t *Token, _ []string) { w.texts(t.Scopes) })},
	{"token/claims", ofToken(func(w *keyWriter, t *Token, rest []string) { w.below(t.Claims, rest, 2) })},

	{"route/name", ofRoute(func(w *keyWriter, r *Route, _ []string) { w.text(r.Name) })},
	{"route/hosts", ofRoute(func(w *keyWriter, r *Route, _ []string) { w.texts(r.Hosts) })},
	{"route/methods", ofRoute(func(w *keyWriter, r *Route, _ []string) { w.texts(r.Methods) })},
	{"route/path", ofRoute(func(w *keyWriter, r *Route, _ []string) { w.text(r.Path) })},
	{"route/params", ofRoute(func(w *keyWriter, r *Route, rest []string) {
		belowObject(w, r.Params, rest, 2, (*keyWriter).text, tagText)
	})},
	{"route/pools", ofRoute(func(w *keyWriter, r *Route, _ []string) { w.texts(r.Pools) })},
	{"route/scopes/all", ofRoute(func(w *keyWriter, r *Route, _ []string) { w.texts(r.Scopes.All) })},
	{"route/scopes/any", ofRoute(func(w *keyWriter, r *Route, _ []string) { w.texts(r.Scopes.Any) })},
	{"route/clients", ofRoute(func(w *keyWriter, r *Route, _ []string) { w.texts(r.Clients) })},
	{"route/any_client", ofRoute(func(w *keyWriter, r *Route, _ []string) { w.flag(r.AnyClient) })},
	{"route/public", ofRoute(func(w *keyWriter, r *Route, _ []string) { w.flag(r.Public) })},

	{"context/extensions", func(w *keyWriter, in *Input, rest []string) {
		belowObject(w, in.Context.Extensions, rest, 2, (*keyWriter).text, tagText)
	}},
	{"context/metadata", func(w *keyWriter, in *Input, rest []string) { w.below(in.Context.Metadata, rest, 2) }},
	{"context/route_metadata", func(w *keyWriter, in *Input, rest []string) { w.below(in.Context.RouteMetadata, rest, 2) }},
}

func ofToken(write func(w *keyWriter, t *Token, rest []string)) func(*keyWriter, *Input, []string) {
	return func(w *keyWriter, in *Input, rest []string) {
		if in.Token == nil {
			w.absent(0, tagObject)
			return
		}
		write(w, in.Token, rest)
	}
}

func ofRoute(write func(w *keyWriter, r *Route, rest []string)) func(*keyWriter, *Input, []string) {
	return func(w *keyWriter, in *Input, rest []string) {
		if in.Route == nil {
			w.absent(0, tagObject)
			return
		}
		write(w, in.Route, rest)
	}
}

// keyPartsOf returns what writes the part of an Input at path: none for what is the same in all inputs.
func keyPartsOf(path []string, exists bool) []keyPart {
	at := strings.Join(path, "/") // no name of a field has a slash, so that one in path only finds too little to be a field
	var parts []keyPart
	for _, leaf := range keyLeaves {
		switch fields := strings.Count(leaf.path, "/") + 1; {
		case len(path) >= fields && strings.Join(path[:fields], "/") == leaf.path:
			return []keyPart{{write: leaf.write, rest: path[fields:], exists: exists}}
		case at == "" || strings.HasPrefix(leaf.path, at+"/"):
			parts = append(parts, keyPart{write: leaf.write, exists: exists})
		}
	}
	if len(path) > 0 && (exists || len(parts) == 0) {
		switch path[0] { // which only a token and a route need not have: all that is below is there, or nothing is
		case "token":
			return []keyPart{{write: ofToken(func(w *keyWriter, _ *Token, _ []string) { w.tag(tagPresent) })}}
		case "route":
			return []keyPart{{write: ofRoute(func(w *keyWriter, _ *Route, _ []string) { w.tag(tagPresent) })}}
		}
	}
	if exists {
		return nil
	}
	return parts
}
