package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// syntax reads the file as YAML and returns its root, or reports why it cannot and returns nil.
func (d *decoder) syntax(data []byte) *yaml.Node {
	if len(data) > MaxFileBytes {
		d.report(place{line: 1, column: 1}, "", fmt.Sprintf("found more than %d bytes, want a smaller file", MaxFileBytes), "is this the right file?")
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // the byte order mark that some Windows editors write
	if offset, message, hint := badCharacter(data); message != "" {
		d.report(placeOf(data, offset), "", message, hint)
		return nil
	}
	first, second, err := parseYAML(data)
	switch {
	case err != nil:
		d.report(d.syntaxError(data, err))
	case first == nil:
		d.report(place{line: 1, column: 1}, "", "found nothing in the file, want at least "+d.least, d.begin)
	case second != nil:
		d.report(at(second), "", "found a second YAML document, want one", "remove the line ---, or the document that you do not mean")
	default:
		return first
	}
	return nil
}

// parseYAML returns the roots of the first two documents, nil where there is none.
func parseYAML(data []byte) (first, second *yaml.Node, err error) {
	// The library's own panics become errors, but for those that it calls internal ones.
	defer func() {
		if r := recover(); r != nil {
			first, second, err = nil, nil, fmt.Errorf("%v", r)
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	roots := make([]*yaml.Node, 2)
	for i := range roots {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		root := doc.Content[0]
		if i == 0 && root.Kind == yaml.ScalarNode && root.Tag == "!!null" && root.Value == "" {
			continue // a file of nothing but "---" and comments
		}
		roots[i] = root
	}
	return roots[0], roots[1], nil
}

// badCharacter finds bytes that are no text, or that some programs take for the end of a line and others do not.
func badCharacter(data []byte) (offset int, message, hint string) {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return i, fmt.Sprintf("found the byte 0x%02X, which is no UTF-8", data[i]), hintEncoding(data)
		case r == '\r' && !bytes.HasPrefix(data[i:], []byte("\r\n")):
			return i, "found a carriage return without a line feed, want lines that end with a line feed", ""
		case r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0x7f:
			return i, fmt.Sprintf("found the control character U+%04X, want text", r), hintEncoding(data)
		case r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfeff:
			return i, fmt.Sprintf("found the invisible character U+%04X, want text without it", r), "delete the character; it often comes with copied text"
		}
		i += size
	}
	return 0, "", ""
}

func hintEncoding(data []byte) string {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) || bytes.IndexByte(data, 0) >= 0 {
		return "is this the right file? If it is text, save it as UTF-8"
	}
	return "save the file as UTF-8"
}

// placeOf returns the place of a byte.
func placeOf(data []byte, offset int) place {
	before := data[:offset]
	line := before[bytes.LastIndexByte(before, '\n')+1:]
	return place{line: bytes.Count(before, []byte("\n")) + 1, column: utf8.RuneCount(line) + 1}
}

var linePrefix = regexp.MustCompile(`^(yaml: )?(line [0-9]+: )?`)

// syntaxError turns an error of the YAML library into a problem. Its text says little to who wrote the file, and
// its line is often that of something around the mistake.
func (d *decoder) syntaxError(data []byte, err error) (at place, key, message, hint string) {
	text := linePrefix.ReplaceAllString(err.Error(), "")
	lines := bytes.SplitAfter(data, []byte("\n"))
	n := firstBadLine(data, lines)
	line := string(lines[n])
	indent := len(line) - len(strings.TrimLeft(line, " "))
	at = place{line: n + 1, column: indent + 1}
	message, hint = explain(text, strings.TrimSpace(line), strings.HasPrefix(line[indent:], "\t"))
	if inOpaque(lines, n) {
		message, hint = "found what is no YAML (it is in the section opa and not shown)", "quote text that has a meaning in YAML"
	}
	if d.hides != nil && d.hides(line) {
		message, hint = "found what is no YAML (it may hold a secret and is not shown)", d.other("clientSecret")
	}
	return at, "", message, hint
}

// explanations say what the library's errors mean to the writer of a file.
var explanations = []struct{ text, message, hint string }{
	{"exceeded max depth", "found lists or mappings nested too deeply", "is this the right file?"},
	{"could not find expected ':'", "found a line that is no `key: value`", "write a colon and a space between key and value; quote text of several lines"},
	{"did not find expected ',' or", "found a [ or { that is not closed, or a character in it that needs quotes", "inside [ ] and { }, quote text that holds any of { } [ ] , such as path: \"/orders/{id}\""},
	{"alphabetic or numeric character", "found a * or & at the beginning of a value, which YAML takes for an alias or anchor", "quote it, such as \"*\" or \"*.example.com\""},
	{"unknown anchor", "found a * at the beginning of a value, which YAML takes for an alias", "quote it, such as \"*\" or \"*.example.com\"; aliases themselves are not supported"},
	{"unexpected end of stream", "found a quote that is not closed", "add the closing quote"},
	{"unexpected document indicator", "found a quote that is not closed", "add the closing quote"},
	{"unknown escape character", "found a \\ in double quotes that begins no escape YAML knows", "use single quotes, where \\ has no meaning"},
	{"did not find expected '-' indicator", "found a key among the items of a list", "begin each item with a dash, and indent what belongs to it deeper than the dash"},
	{"did not find expected <document start>", "found more after the end of the document", "remove the line ..."},
	{"block sequence entries are not allowed", "found a list item behind a key, on the same line", "put the dash on a line of its own, indented"},
	{"cannot start any token", "found a character that cannot begin a value (such as @, ` or %)", "quote the value"},
}

func explain(text, line string, tab bool) (message, hint string) {
	if tab || strings.Contains(text, "tab character") {
		return "found a tab in the indentation, want spaces", "replace each tab with spaces"
	}
	switch {
	case strings.Contains(text, "mapping values are not allowed") && strings.Count(line, ": ") > 1:
		return "found a second `: ` in one line: " + quote(line), "quote text that holds `: `"
	case strings.Contains(text, "mapping values are not allowed"):
		return "found a line that is indented deeper than the line above allows: " + quote(line), "indent it as its neighbours are; does the line above lack its colon?"
	case strings.Contains(text, "did not find expected key") && strings.ContainsAny(line, `'"`):
		return "found text after a closing quote: " + quote(line), "inside single quotes, write ' twice"
	case strings.Contains(text, "did not find expected key"):
		return "found a line whose indentation is that of no line before it: " + quote(line), "indent it as its neighbours are"
	}
	for _, e := range explanations {
		if strings.Contains(text, e.text) {
			return e.message + ": " + quote(line), e.hint
		}
	}
	return "found what is no YAML (" + text + "): " + quote(line), ""
}

// firstBadLine returns the index of the first line that makes the file unreadable: what precedes it can be read by
// itself. For a bracket or quote that is not closed, that is the line where it is opened.
//
// The parser says at most which construct it was in, so we let it read the file byte by byte, to learn how far
// it came, and go back from there until the lines before can be read.
func firstBadLine(data []byte, lines [][]byte) int {
	r := &byteReader{data: data}
	_ = decodeAll(r)
	n := min(bytes.Count(data[:r.read], []byte("\n")), len(lines)-1)
	end := 0
	for _, l := range lines[:n] {
		end += len(l)
	}
	const budget = 4 << 20 // bytes to parse again; a usual file is a hundredth of that
	for spent := 0; n > 0 && spent < budget; n-- {
		spent += end
		if decodeAll(bytes.NewReader(data[:end])) == nil {
			break
		}
		end -= len(lines[n-1])
	}
	for n > 0 && len(bytes.TrimSpace(lines[n])) == 0 {
		n--
	}
	return n
}

func decodeAll(r io.Reader) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	dec := yaml.NewDecoder(r)
	for err == nil {
		var doc yaml.Node
		err = dec.Decode(&doc)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// byteReader hands out one byte at a time and counts them.
type byteReader struct {
	data []byte
	read int
}

func (r *byteReader) Read(p []byte) (int, error) {
	if r.read == len(r.data) {
		return 0, io.EOF
	}
	n := copy(p, r.data[r.read:r.read+1])
	r.read += n
	return n, nil
}
