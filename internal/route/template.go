package route

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// maxTemplateBytes bounds the depth of the table. It is what limits.pathBytes allows a request by default.
const maxTemplateBytes = 8192

type kind byte

// The kinds of a template's segment, from the least to the most specific. finish is the end of a template without
// **: /files is more specific for /files than /files/** is.
const (
	tail kind = iota
	finish
	variable
	literal
)

// A segment is one segment of a template: a decoded literal, the name of a variable, or the tail.
type segment struct {
	kind kind
	text string
}

var variableName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// parseTemplate reads a rule's path.
func parseTemplate(path string, encodedSlash bool) ([]segment, error) {
	switch {
	case path == "":
		return nil, errors.New("is empty, want a path such as /orders/{id}")
	case path[0] != '/':
		return nil, fmt.Errorf("found %q, want a path that starts with a slash", path)
	case len(path) > maxTemplateBytes:
		return nil, fmt.Errorf("found %d bytes, want at most %d", len(path), maxTemplateBytes)
	}
	var segments []segment
	texts := strings.Split(path[1:], "/")
	for i, text := range texts {
		last := i == len(texts)-1
		s, err := parseSegment(text, last, encodedSlash)
		if err != nil {
			return nil, fmt.Errorf("found %q: %w", path, err)
		}
		if s.kind == variable && hasVariable(segments, s.text) {
			return nil, fmt.Errorf("found %q: {%s} is there twice, want each name once", path, s.text)
		}
		segments = append(segments, s)
	}
	return segments, nil
}

func parseSegment(text string, last, encodedSlash bool) (segment, error) {
	name, braced := strings.CutPrefix(text, "{")
	name, closed := strings.CutSuffix(name, "}")
	switch {
	case text == "**" && last:
		return segment{kind: tail}, nil
	case text == "**":
		return segment{}, errors.New("** is not the last segment, want {name} for one segment or ** at the end")
	case text == "*":
		return segment{}, errors.New("* is no segment, want {name} for one segment or ** at the end for any number")
	case braced && closed && variableName.MatchString(name):
		return segment{kind: variable, text: name}, nil
	case strings.ContainsAny(text, "{}"):
		return segment{}, fmt.Errorf("segment %q, want {name} as a whole segment, its name of letters, digits and _\n"+
			"hint: a brace that is part of the path is written %%7B or %%7D", text)
	case strings.Contains(text, "*"):
		return segment{}, fmt.Errorf("segment %q, want no * inside a segment\n"+
			"hint: a star that is part of the path is written %%2A", text)
	case text == "" && !last:
		return segment{}, errors.New("an empty segment, want none but a trailing slash")
	case text == "":
		return segment{kind: literal}, nil
	}
	return parseLiteral(text, encodedSlash)
}

// parseLiteral accepts a literal that a request can have: it would be a silent trap otherwise, since the rule would
// protect nothing.
func parseLiteral(text string, encodedSlash bool) (segment, error) {
	if strings.Contains(text, "?") {
		return segment{}, fmt.Errorf("segment %q has a query, want the path only", text)
	}
	p, reason := parsePath("/" + text)
	if reason != "" {
		return segment{}, fmt.Errorf("segment %q is refused in every request (%s), want another spelling", text, reason)
	}
	decoded := p.Segments()[0]
	again, _ := unescape(decoded)
	switch canonical := p.Canonical[1:]; {
	case canonical != text:
		return segment{}, fmt.Errorf("segment %q, want its canonical spelling %q", text, canonical)
	case p.Parameters:
		return segment{}, fmt.Errorf("segment %q has a path parameter, want {name} for a segment that may have one", text)
	case p.EncodedSlash && !encodedSlash:
		return segment{}, fmt.Errorf("segment %q has an encoded slash, want encodedSlash: allow with it", text)
	case strings.ContainsAny(decoded, "?#") || again != decoded:
		return segment{}, fmt.Errorf("segment %q reads differently to different servers, want {name}", text)
	}
	return segment{kind: literal, text: decoded}, nil
}

func hasVariable(segments []segment, name string) bool {
	for _, s := range segments {
		if s.kind == variable && s.text == name {
			return true
		}
	}
	return false
}
