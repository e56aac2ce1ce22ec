package cognitotest

import (
	"bytes"
	"encoding/json"
)

// object is a JSON object that keeps the order of its members, as a map would not.
type object []member

type member struct {
	name  string
	value any
}

// set replaces the value of the member, or appends it.
func (o object) set(name string, value any) object {
	for i := range o {
		if o[i].name == name {
			o[i].value = value
			return o
		}
	}
	return append(o, member{name, value})
}

// without returns o less the members of that name.
func (o object) without(name string) object {
	var kept object
	for _, m := range o {
		if m.name != name {
			kept = append(kept, m)
		}
	}
	return kept
}

func (o object) toMap() map[string]any {
	m := make(map[string]any, len(o))
	for _, member := range o {
		m[member.name] = member.value
	}
	return m
}

// MarshalJSON implements [json.Marshaler].
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := marshal(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// marshal is json.Marshal without the escapes that Go adds for HTML.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// mustMarshal is for values that are ours, or for a caller's mistake in a test.
func mustMarshal(v any) []byte {
	b, err := marshal(v)
	if err != nil {
		panic("cognitotest: " + err.Error())
	}
	return b
}

// tokenJSON marshals a part of a token. Cognito's encoder writes / as \/ there, in kid, iss and scope (observed in
// published tokens), and not in the JWK Set. A slash can occur in JSON only inside a string, so replacing is safe.
func tokenJSON(v any) []byte {
	return bytes.ReplaceAll(mustMarshal(v), []byte("/"), []byte(`\/`))
}
