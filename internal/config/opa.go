package config

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// An Opaque is a section in the format of another program. Its numbers are [json.Number], so that encoding/json writes
// what the file says. What is in it may be a credential and is never shown: not in [Config.YAML], and not in a message.
type Opaque map[string]any

var opaqueType = reflect.TypeFor[Opaque]()

const notShown = " (not shown)"

// shownDigest is what [Config.YAML] writes for a member of an Opaque.
var shownDigest = regexp.MustCompile(`^sha256:[0-9a-f]{12} \(not shown\)$`)

// digests returns what can be shown of each member: a digest, so that a change shows. The digest of a digest is the
// same, so that the effective configuration has the revision of the one it was made of.
func (o Opaque) digests() map[string]string {
	shown := make(map[string]string, len(o))
	for name, value := range o {
		if text, ok := value.(string); ok && shownDigest.MatchString(text) {
			shown[name] = text
			continue
		}
		// Maps with text as keys, lists and scalars can always be written, and maps are in order of their keys.
		text, err := json.Marshal(value)
		if err != nil {
			panic("config: " + err.Error())
		}
		sum := sha256.Sum256(text)
		shown[name] = "sha256:" + hex.EncodeToString(sum[:6]) + notShown
	}
	return shown
}

// Equal reports whether two sections say the same, as far as can be shown.
func (o Opaque) Equal(p Opaque) bool { return reflect.DeepEqual(o.digests(), p.digests()) }

// HasBundles reports whether policies come from OPA's bundles, or from what discovery says.
func (c *Config) HasBundles() bool {
	_, bundles := c.OPA["bundles"]
	_, bundle := c.OPA["bundle"]
	_, discovery := c.OPA["discovery"]
	return bundles || bundle || discovery
}

func (o Opaque) node() *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	shown := o.digests()
	for _, name := range sortedKeys(shown) {
		n.Content = append(n.Content, textNode(name), textNode(shown[name]))
	}
	return n
}

// opaque decodes a mapping of any shape. It stays strict about what makes YAML read differently from what it does.
func (d *decoder) opaque(n *yaml.Node, v reflect.Value, f field, key string) {
	if n.Kind != yaml.MappingNode {
		hint := cmp.Or(hintEmptySection(n), f.hintExample())
		d.report(at(n), key, "found "+foundKind(n)+", want "+f.want(v.Type()), hint)
		return
	}
	v.Set(reflect.ValueOf(Opaque(d.anyMapping(n, key))))
}

func (d *decoder) anyMapping(n *yaml.Node, key string) map[string]any {
	m := make(map[string]any)
	first := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		line, twice := first[name.Value]
		switch {
		case name.Kind != yaml.ScalarNode || name.Tag != "!!str" || unplain(name):
			d.report(at(name), key, "found a key that is no plain text (not shown), want text", "quote it; in YAML << merges, { begins a mapping and [ a list")
			continue
		case twice:
			d.report(at(name), join(key, name.Value), fmt.Sprintf("found the key a second time, the first is on line %d; want it once", line), "")
			continue
		}
		first[name.Value] = name.Line
		full := join(key, name.Value)
		d.places[full] = at(name)
		m[name.Value] = d.anyValue(value, full)
	}
	return m
}

func (d *decoder) anyValue(n *yaml.Node, key string) any {
	if unplain(n) {
		d.report(at(n), key, "found an alias, an anchor or a tag (not shown), want a value without one", "write the value out; if it is text, quote it")
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		return d.anyMapping(n, key)
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, item := range n.Content {
			list[i] = d.anyValue(item, itemOf(key, i))
		}
		return list
	}
	switch n.Tag {
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true")
	case "!!int", "!!float":
		if !decimal.MatchString(n.Value) {
			d.report(at(n), key, "found a number that is not written in decimal (not shown), want digits", "quote it if it is text")
			return nil
		}
		return json.Number(n.Value)
	}
	return n.Value
}

// unplain is [decoder.unusual] for values that may not be shown.
func unplain(n *yaml.Node) bool {
	return n.Kind == yaml.AliasNode || n.Anchor != "" || n.Style&yaml.TaggedStyle != 0
}

// foundKind is [found] without the value.
func foundKind(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		return "a value that is no mapping (not shown)"
	}
	return found(n)
}

// inOpaque reports whether a line belongs to the section opa, as far as that can be told of a file that is no YAML.
func inOpaque(lines [][]byte, n int) bool {
	for i := min(n, len(lines)-1); i >= 0; i-- {
		line := lines[i]
		if len(bytes.TrimSpace(line)) == 0 || slices.Contains([]byte(" \t#-]}"), line[0]) {
			continue
		}
		return opaqueLine.Match(line)
	}
	return false
}

var opaqueLine = regexp.MustCompile(`(^|[{,\s"'])opa["']?\s*:`)
