package config

import (
	"cmp"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// hintEmpty is for a key with nothing behind it.
func hintEmpty(n *yaml.Node) string {
	if n.Tag == "!!null" {
		return "give it a value, or delete the line"
	}
	return ""
}

// hintEmptySection is for one that should have more below it, which is mostly commented out or not indented.
func hintEmptySection(n *yaml.Node) string {
	if n.Tag == "!!null" {
		return "delete the line, or indent what belongs to it"
	}
	return ""
}

// hintExample shows what a value looks like.
func (f field) hintExample() string {
	if f.example == "" {
		return ""
	}
	return "write it like " + f.example
}

func hintSection(n *yaml.Node, f field, keys []string) string {
	switch {
	case n.Tag == "!!null":
		return hintEmptySection(n)
	case n.Kind == yaml.ScalarNode && len(keys) == 1:
		return "write {" + keys[0] + ": " + shorten(n.Value) + "}"
	}
	return f.hintExample()
}

func hintList(n *yaml.Node, t reflect.Type, f field) string {
	switch {
	case n.Tag == "!!null":
		return hintEmptySection(n)
	case n.Kind != yaml.ScalarNode || t.Elem().Kind() == reflect.Struct:
		return f.hintExample()
	}
	items := strings.FieldsFunc(n.Value, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
	for i, item := range items {
		if strings.ContainsAny(item, `*{}[]&!|>'"%@:#`) {
			items[i] = strconv.Quote(item)
		}
	}
	return fmt.Sprintf("write [%s]", shorten(strings.Join(items, ", ")))
}

// hintBrackets is for a secret list with one value that does not stand in brackets. The value is not shown.
func hintBrackets(n *yaml.Node, t reflect.Type, f field) string {
	if t.Kind() != reflect.Slice || n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return ""
	}
	if f.format == "path" {
		return "write it in brackets: [FILE]"
	}
	return "write it in brackets: [NAME]"
}

func hintTextType(n *yaml.Node, f field) string {
	switch {
	case n.Tag == "!!null":
		return hintEmpty(n)
	case n.Kind == yaml.SequenceNode:
		return "write one value, without [ ] or dash"
	case n.Kind == yaml.MappingNode && n.Style&yaml.FlowStyle != 0 && len(n.Content) > 0 && n.Content[0].Kind == yaml.MappingNode:
		return "this looks like a template, {{ … }}, that nothing was filled into"
	case n.Kind == yaml.MappingNode:
		return "quote text that holds `: `, or begins with {"
	case f.empty != "" && n.Tag == "!!bool":
		return hintOff(n.Value)
	case n.Tag == "!!bool" && slices.Contains(f.enum, Allow):
		if strings.EqualFold(n.Value, "true") {
			return "write " + Allow
		}
		return "write " + Deny
	case len(f.enum) > 0:
		return ""
	case f.format == "address" && n.Tag == "!!int":
		return "write 127.0.0.1:" + n.Value
	case n.Kind == yaml.ScalarNode:
		return "quote it: " + strconv.Quote(shorten(n.Value))
	}
	return ""
}

func hintBoolType(n *yaml.Node, f field) string {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return hintEmpty(n)
	}
	return hintBool(n.Value)
}

func hintBool(text string) string {
	switch strings.ToLower(text) {
	case "true", "yes", "y", "on", "1":
		return "write true, without quotes"
	case "false", "no", "n", "off", "0":
		return "write false, without quotes"
	}
	return ""
}

func hintNumberType(n *yaml.Node, f field) string {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return hintEmpty(n)
	}
	if n.Tag == "!!str" && decimal.MatchString(n.Value) {
		return "write " + n.Value + ", without quotes"
	}
	return hintNumber(n.Value)
}

var otherNumber = regexp.MustCompile(`^[-+]?(0[0-9xob]|[0-9]+_)[0-9a-fA-F_]*$`)

// hintNumber is for what YAML takes as a number and we do not, for a percentage, or for a size with a unit.
func hintNumber(text string) string {
	if otherNumber.MatchString(text) {
		return "write plain decimal digits, without leading zeros, 0x or _"
	}
	if p, percent := strings.CutSuffix(text, "%"); percent && decimal.MatchString(p) {
		x, _ := strconv.ParseFloat(p, 64)
		return "write " + writeFloat(x/100)
	}
	return hintBytes(text)
}

var byteSize = regexp.MustCompile(`^([0-9]{1,6}) ?([kKmM])(i?[bB])?$`)

func hintBytes(text string) string {
	m := byteSize.FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	size, _ := strconv.Atoi(m[1])
	size <<= 10
	if strings.EqualFold(m[2], "m") {
		size <<= 10
	}
	return fmt.Sprintf("write %d", size)
}

func hintDurationType(n *yaml.Node, f field) string {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return hintEmpty(n)
	}
	return hintDuration(n.Value)
}

var durationWords = regexp.MustCompile(`^ *([0-9]{1,6}(?:\.[0-9]{1,3})?) *([a-zA-Z]*) *$`)

func hintDuration(text string) string {
	m := durationWords.FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	switch unit := strings.ToLower(m[2]); unit {
	case "", "sec", "secs", "second", "seconds", "s":
		return "write " + m[1] + "s"
	case "min", "mins", "minute", "minutes", "m":
		return "write " + m[1] + "m"
	case "hr", "hrs", "hour", "hours", "h":
		return "write " + m[1] + "h"
	case "ms", "msec", "millis", "milliseconds":
		return "write " + m[1] + "ms"
	case "d", "day", "days":
		days, _ := strconv.ParseFloat(m[1], 64)
		hours := time.Duration(days * 24 * float64(time.Hour))
		return "write " + writeDuration(hours)
	}
	return ""
}

// hintOff is for a listener that somebody means to switch off.
func hintOff(text string) string {
	switch strings.ToLower(text) {
	case "off", "none", "no", "false", "disabled", "disable", "-":
		return `to switch it off, write ""`
	}
	return ""
}

func hintControl(text string) string {
	if strings.TrimSpace(text) != text {
		return "remove the line break or tab at the end"
	}
	return ""
}

func hintEnum(text string, enum []string) string {
	if meant := nearest(text, enum); meant != "" {
		return "did you mean " + meant + "?"
	}
	return hintSubstitution(text)
}

// hintSubstitution is for those who expect variables to be filled in.
func hintSubstitution(text string) string {
	if strings.Contains(text, "${") || strings.Contains(text, "{{") || strings.HasPrefix(text, "$") {
		return "nothing in this file is substituted; see docs/config.md for the keys that environment variables can set"
	}
	return ""
}

// hintDefault is for an empty value: where there is a default, it is mostly a template that had nothing to fill in.
func (f field) hintDefault() string {
	if f.def == nil {
		return ""
	}
	return "without the key, it is " + *f.def
}

// hintFormat has a remedy for a text that is not of a format, or "".
func hintFormat(name, text string) string {
	if hint := hintSubstitution(text); hint != "" {
		return hint
	}
	switch name {
	case "url":
		return hintURL(text)
	case "domain":
		return hintDomain(text)
	case "name":
		return hintName(text)
	case "clientID":
		return hintPlaceholder(text)
	case "region":
		return hintRegion(text)
	case "userPoolID":
		return hintUserPoolID(text)
	case "scope":
		return hintScope(text)
	case "header":
		return hintHeader(text)
	case "headerPrefix":
		return hintPrefix(text)
	case "headerSuffix":
		return hintSuffix(text)
	case "reason":
		return hintReason(text)
	case "rule":
		return hintRule(text)
	case "builtin":
		return write("builtin", strings.TrimSuffix(strings.ToLower(text), "()"))
	case "logField":
		return hintLogField(text)
	}
	return ""
}

// write suggests a text if it is of the format: a hint must not send anybody from one mistake to the next.
func write(format, text string) string {
	if isValid(format, text) {
		return "write " + text
	}
	return ""
}

func hintURL(s string) string {
	if !strings.Contains(s, "://") && !strings.ContainsAny(s, " \t") {
		return "write https://" + s
	}
	return ""
}

func hintDomain(s string) string {
	_, host, _ := strings.Cut(strings.ToLower(s), "://")
	host, _, _ = strings.Cut(cmp.Or(host, strings.ToLower(s)), "/")
	return write("domain", host)
}

func hintName(s string) string {
	return write("name", strings.Trim(notNameChars.ReplaceAllString(s, "-"), "-._"))
}

var notNameChars = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

func hintPlaceholder(s string) string {
	if strings.ContainsAny(s, "<>{}$[]") {
		return "this looks like a placeholder; the id is in the Cognito console under App clients"
	}
	return ""
}

var availabilityZone = regexp.MustCompile(`^([a-z]{2,8}(-[a-z]+)+-[0-9]{1,2})[a-z]$`)

func hintRegion(s string) string {
	if m := availabilityZone.FindStringSubmatch(s); m != nil {
		return "that is an availability zone; write " + m[1]
	}
	return write("region", strings.ReplaceAll(strings.ToLower(s), "_", "-"))
}

func hintUserPoolID(s string) string {
	switch {
	case strings.HasPrefix(s, "arn:"):
		return write("userPoolID", s[strings.LastIndex(s, "/")+1:])
	case strings.Contains(s, "://"):
		return "for an issuer URL use the key issuer instead of region and userPoolId"
	}
	return "the id is in the Cognito console under User pool ID; it is not the pool's name"
}

func hintScope(s string) string {
	if parts := strings.Fields(s); len(parts) > 1 {
		return "write each scope as an item of its own: [" + strings.Join(parts, ", ") + "]"
	}
	return ""
}

func hintHeader(s string) string {
	if strings.HasPrefix(s, ":") {
		return "pseudo headers cannot be changed"
	}
	return write("header", strings.TrimSpace(strings.TrimSuffix(s, ":")))
}

func hintPrefix(s string) string {
	fixed := strings.ReplaceAll(strings.ToLower(s), "_", "-")
	return write("headerPrefix", strings.TrimRight(fixed, "-")+"-")
}

func hintSuffix(s string) string {
	fixed := strings.ReplaceAll(strings.ToLower(s), "_", "-")
	for _, prefix := range []string{"x-auth-", "-"} {
		fixed = strings.TrimPrefix(fixed, prefix)
	}
	return write("headerSuffix", fixed)
}

func hintReason(s string) string {
	return write("reason", strings.Trim(notReasonChars.ReplaceAllString(strings.ToLower(s), "_"), "_"))
}

var notReasonChars = regexp.MustCompile(`[^a-z0-9_]+`)

func hintRule(s string) string {
	fixed := strings.ReplaceAll(strings.Trim(s, "/"), "/", ".")
	if !strings.HasPrefix(fixed, "data.") {
		fixed = "data." + fixed
	}
	return write("rule", fixed)
}

func hintLogField(s string) string {
	kind, name, ok := strings.Cut(s, ".")
	if !ok {
		return write("logField", "headers."+s)
	}
	if kind = nearest(kind, []string{"headers", "query", "claims"}); kind != "" {
		return write("logField", kind+"."+name)
	}
	return ""
}
