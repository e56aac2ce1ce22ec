package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// redacted stands for every secret.
const redacted = "REDACTED"

// YAML returns the configuration with every default filled in, as the file would say it, in an order that does
// not change. Secrets are replaced by REDACTED. A value that an environment variable set has its name behind it.
func (c *Config) YAML() []byte { return render(reflect.ValueOf(c).Elem(), c.sources) }

// Revision identifies the configuration: "sha256:" and 12 hex digits of [Config.YAML], comments left out. It is
// the same for files that mean the same, and wherever they are; and it does not change with a secret.
func (c *Config) Revision() string {
	sum := sha256.Sum256(render(reflect.ValueOf(c).Elem(), nil))
	return "sha256:" + hex.EncodeToString(sum[:6])
}

// String returns what [Config.YAML] does, so that no way of printing a Config shows a secret.
func (c *Config) String() string { return string(c.YAML()) }

// LogValue is for package log/slog; see [Config.String].
func (c *Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

func render(v reflect.Value, sources map[string]string) []byte {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	// Encoding text, numbers and lists of them into memory cannot fail.
	if err := enc.Encode(node(v, field{}, "", sources)); err != nil {
		panic("config: render: " + err.Error())
	}
	return b.Bytes()
}

// node returns v as a YAML node.
func node(v reflect.Value, f field, key string, sources map[string]string) *yaml.Node {
	if o, ok := v.Interface().(Opaque); ok {
		return o.node()
	}
	var n *yaml.Node
	switch v.Kind() {
	case reflect.Struct:
		n = &yaml.Node{Kind: yaml.MappingNode}
		for _, f := range fieldsOf(v.Type()) {
			member := v.Field(f.index)
			if f.def == nil && empty(member) {
				continue // as if it were not in the file
			}
			full := join(key, f.key)
			n.Content = append(n.Content, textNode(f.key), node(member, f, full, sources))
		}
	case reflect.Map:
		n = &yaml.Node{Kind: yaml.MappingNode}
		for _, name := range sortedKeys(anyMap(v)) {
			n.Content = append(n.Content, textNode(name), node(v.MapIndex(reflect.ValueOf(name)), f.item(), join(key, name), sources))
		}
	case reflect.Slice:
		n = &yaml.Node{Kind: yaml.SequenceNode}
		if v.Type().Elem().Kind() != reflect.Struct {
			n.Style = yaml.FlowStyle
		}
		for i := range v.Len() {
			n.Content = append(n.Content, node(v.Index(i), f.item(), itemOf(key, i), sources))
		}
	default:
		n = scalarNode(v, f)
	}
	if name := sources[key]; name != "" {
		n.LineComment = "# from " + name
	}
	return n
}

// empty reports whether a value says nothing: zero, or nothing but defaults of nothing.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range fieldsOf(v.Type()) {
			if f.def != nil || !empty(v.Field(f.index)) {
				return false
			}
		}
		return true
	case reflect.Map, reflect.Slice:
		return v.Len() == 0
	}
	return v.IsZero()
}

func anyMap(v reflect.Value) map[string]bool {
	names := make(map[string]bool, v.Len())
	for _, name := range v.MapKeys() {
		names[name.String()] = true
	}
	return names
}

func scalarNode(v reflect.Value, f field) *yaml.Node {
	switch {
	case f.redacted:
		return textNode(redacted)
	case v.Type() == durationType:
		return textNode(writeDuration(time.Duration(v.Int())))
	case v.Kind() == reflect.String:
		return textNode(v.String())
	case v.Kind() == reflect.Float64:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: writeFloat(v.Float())}
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(v.Interface())}
}

// textNode returns text as a node; the encoder quotes it where it must.
func textNode(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
}

func writeFloat(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

// writeDuration writes 24h and not 24h0m0s, and us as the file must have it.
func writeDuration(t time.Duration) string {
	s := strings.Replace(t.String(), "µ", "u", 1)
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
