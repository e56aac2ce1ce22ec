package decisionlog

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// An Event is a decision in the form of OPA's decision logs (the management API's "decision log service"). Input holds what the
// line has of the policy's input, in the places that the input has it; it is never the whole input.
type Event struct {
	DecisionID string
	TraceID    string
	Path       string // of the deciding rule, such as extauthz/decision
	Revision   string // of the policy
	Timestamp  time.Time
	Input      any
	Result     any
	Erased     []string
	Masked     []string
	// Custom holds the fields of the line that are neither input nor result.
	Custom map[string]any
}

// A record is a decision on its way to a line.
type record struct {
	*Decision

	values     []any // of fields; nil as long as no rule or event wants them
	included   []any
	doc        map[string]any // of input and result; made when a rule or OPA's log wants it
	erased     []string
	masked     []string
	paths      [][]string // that mask rules named
	maskFailed bool
}

func newRecord(d *Decision) *record {
	r := &record{Decision: d}
	if len(d.Included) > 0 {
		r.included = make([]any, len(d.Included))
	}
	for i, f := range d.Included {
		r.included[i] = f.Value
	}
	return r
}

// spread makes the values, for who wants to have them one by one.
func (r *record) spread() {
	if r.values != nil {
		return
	}
	r.values = make([]any, len(fields))
	for i, f := range fields {
		r.values[i] = f.get(r.Decision).any()
	}
}

// document returns the event that log rules see as their input.
func (r *record) document(path string) map[string]any {
	r.place()
	doc := map[string]any{
		"labels": map[string]any{}, "decision_id": r.ID, "path": path, "timestamp": r.values[0],
		"input": r.doc["input"], "result": r.doc["result"], "custom": r.custom(),
	}
	for name, value := range map[string]string{"trace_id": r.TraceID, "revision": r.Policy.Revision} {
		if value != "" {
			doc[name] = value
		}
	}
	return doc
}

// place puts the values where the policy has them.
func (r *record) place() {
	if r.doc != nil {
		return
	}
	r.spread()
	r.doc = map[string]any{
		"input":  map[string]any{},
		"result": map[string]any{"allowed": r.Outcome == "allowed", "outcome": r.Outcome, "reason": r.Reason},
	}
	for i, f := range fields {
		if f.path != nil && r.values[i] != nil {
			put(r.doc, f.path, r.values[i])
		}
	}
	for i, f := range r.Included {
		value := copyJSON(r.included[i]) // rules change the document in place, and a claim is that of all who send the token
		if s, ok := value.(string); ok && f.Kind == Query {
			value = []any{s} // the policy has a list
		}
		if value != nil {
			put(r.doc, f.path(), value)
		}
	}
}

// copyJSON copies the objects and lists of a JSON value.
func copyJSON(value any) any {
	switch v := value.(type) {
	case map[string]any:
		object := make(map[string]any, len(v))
		for name, member := range v {
			object[name] = copyJSON(member)
		}
		return object
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			list[i] = copyJSON(item)
		}
		return list
	}
	return value
}

func put(doc map[string]any, path []string, value any) {
	for _, name := range path[:len(path)-1] {
		next, ok := doc[name].(map[string]any)
		if !ok {
			next = map[string]any{}
			doc[name] = next
		}
		doc = next
	}
	doc[path[len(path)-1]] = value
}

func drop(doc map[string]any, path []string) {
	if parent, ok := get(doc, path[:len(path)-1]).(map[string]any); ok {
		delete(parent, path[len(path)-1])
	}
}

func get(doc any, path []string) any {
	for _, name := range path {
		object, _ := doc.(map[string]any)
		doc = object[name]
	}
	return doc
}

// custom returns what is neither input nor result.
func (r *record) custom() map[string]any {
	custom := make(map[string]any)
	for i, f := range fields {
		if f.path == nil && r.values[i] != nil {
			custom[f.name] = r.values[i]
		}
	}
	return custom
}

// mask takes back what rules have made of the document.
func (r *record) mask(doc map[string]any, paths [][]string) {
	r.doc = map[string]any{"input": doc["input"], "result": doc["result"]}
	r.erased, _ = doc["erased"].([]string)
	r.masked, _ = doc["masked"].([]string)
	r.paths = paths
	if len(paths) == 0 {
		return
	}
	for i, f := range fields {
		if f.path != nil {
			r.values[i] = r.after(r.values[i], f.path, f.twins)
		}
	}
	for i, f := range r.Included {
		value := r.after(r.included[i], f.path(), f.twins())
		if list, ok := value.([]any); ok && f.Kind == Query && len(list) == 1 {
			value = list[0]
		}
		r.included[i] = value
	}
}

// after returns what is left of a value.
func (r *record) after(value any, path []string, twins [][]string) any {
	if value == nil {
		return nil
	}
	for _, m := range r.paths {
		if touched([][]string{m}, twins) {
			if pointer := "/" + strings.Join(m, "/"); !slices.Contains(r.erased, pointer) {
				r.erased = append(r.erased, pointer)
			}
			drop(r.doc, path)
			return nil
		}
	}
	return get(r.doc, path)
}

// withoutMaskable leaves only what no rule can mask.
func (r *record) withoutMaskable() {
	r.maskFailed = true
	r.spread()
	for i, f := range fields {
		if f.path != nil {
			r.values[i] = nil
		}
	}
	clear(r.included)
	r.doc = nil
}

// last returns the fields that depend on the others, in the order of the line.
func (r *record) last() []member {
	var list []member
	for i, f := range r.Included {
		list = append(list, member{f.name(), r.included[i]})
	}
	missing := r.missing()
	list = append(list, member{"replayable", len(missing) == 0})
	for _, m := range []struct {
		name  string
		texts []string
	}{{"missing", missing}, {"erased", r.erased}, {"masked", r.masked}} {
		if len(m.texts) > 0 {
			list = append(list, member{m.name, m.texts})
		}
	}
	if r.maskFailed {
		list = append(list, member{"mask_failed", true})
	}
	return list
}

type member struct {
	name  string
	value any
}

// missing is empty without a policy that was asked: what was decided before is so for every policy.
func (r *record) missing() []string {
	if r.Policy.Revision == "" || r.Replay == nil {
		return nil
	}
	return r.Replay.missing(r.Policy, r.Request, r.paths, r.maskFailed)
}

// append writes the line.
func (r *record) append(dst []byte) []byte {
	dst = append(dst, '{')
	for i := range fields {
		if r.values != nil {
			if r.values[i] != nil {
				dst = appendMember(dst, fields[i].name, r.values[i])
			}
		} else if v := fields[i].get(r.Decision); v.kind != isAbsent {
			dst = append(v.appendTo(appendName(dst, fields[i].name)), ',')
		}
	}
	for _, m := range r.last() {
		if m.value != nil {
			dst = appendMember(dst, m.name, m.value)
		}
	}
	dst[len(dst)-1] = '}' // in place of a comma: time is always there
	return append(dst, '\n')
}

func appendMember(dst []byte, name string, value any) []byte {
	dst = append(appendText(dst, name), ':')
	return append(appendValue(dst, value), ',')
}

// appendName appends the name of a field of ours, in which nothing needs an escape.
func appendName(dst []byte, name string) []byte {
	return append(append(append(dst, '"'), name...), `":`...)
}

func appendText(dst []byte, s string) []byte {
	// Its error is about bytes that are not UTF-8. They are replaced all the same.
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}

func appendValue(dst []byte, value any) []byte {
	switch v := value.(type) {
	case string:
		return appendText(dst, v)
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case bool:
		return strconv.AppendBool(dst, v)
	case []string:
		return appendTexts(dst, v)
	}
	b, err := json.Marshal(value)
	if err != nil {
		return append(dst, `"?"`...) // what a policy upserts is JSON, and so is a claim
	}
	return append(dst, b...)
}

func appendTexts(dst []byte, list []string) []byte {
	dst = append(dst, '[')
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendText(dst, s)
	}
	return append(dst, ']')
}

// event returns the decision in OPA's form.
func (r *record) event(path string) Event {
	r.place()
	custom := r.custom()
	for _, m := range r.last() {
		if m.value != nil && !strings.Contains(m.name, ".") { // the included are in the input
			custom[m.name] = m.value
		}
	}
	delete(custom, "erased")
	delete(custom, "masked")
	return Event{
		DecisionID: r.ID, TraceID: r.TraceID, Path: path, Revision: r.Policy.Revision, Timestamp: r.Time,
		Input: r.doc["input"], Result: r.doc["result"], Erased: r.erased, Masked: r.masked, Custom: custom,
	}
}
