package decisionlog

import (
	"slices"

	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

// A source says which part of the input can be had from a line.
type source struct {
	path  []string   // below input; with all that is below it
	from  [][]string // the maskable paths that it is had from
	exist bool       // only whether there is something at path
}

// sources are the parts of the input that every line has, or that a field of it and the configuration of its
// config_revision tell.
var sources = []source{
	{path: at("attributes/request/http/method"), from: all(http + "/method")},
	{path: at("canonical/host"), from: all("/input/canonical/host")},
	{path: at("canonical/path"), from: all("/input/canonical/path")},
	{path: at("canonical"), from: all("/input/canonical/host", "/input/canonical/path")},
	{path: at("parsed_path"), from: all("/input/canonical/path")},
	{path: at("route"), from: all("/input/route/name", "/input/canonical/path")}, // the path gives its parameters
	{path: at("token"), from: all("/input/token/pool"), exist: true},
	{path: at("token/pool"), from: all("/input/token/pool")},
	{path: at("token/client_id"), from: all("/input/token/client_id")},
	{path: at("token/client_name"), from: all("/input/token/client_name")},
	{path: at("token/scopes"), from: all("/input/token/scopes")},
	{path: at("token/token_id"), from: all("/input/token/token_id")},
	{path: at("source_principal"), from: all("/input/source_principal")},
	{path: at("attributes/source/principal"), from: all("/input/source_principal")},
}

// A Replay knows which lines can be replayed. It is safe for concurrent use.
type Replay struct {
	sources []source
}

// NewReplay returns the Replay of a log that includes these fields; their values do not matter.
func NewReplay(include []Included) *Replay {
	r := &Replay{sources: slices.Clone(sources)}
	for _, f := range include {
		path := f.path()
		r.sources = append(r.sources, source{path: path[1:], from: [][]string{path}})
	}
	return r
}

// A Request says what is peculiar about one.
type Request struct {
	// RawHeaders: Envoy sent the headers in header_map, so the policy saw none of them where it usually does.
	RawHeaders bool
	// Unreadable: the policy was not asked after all, because it reads a query or a body that has no one meaning.
	Unreadable bool
	// LongMethod: the line has only a part of the method.
	LongMethod bool
}

var (
	headersPath = at("attributes/request/http/headers")
	methodPath  = at("attributes/request/http/method")
	unreadable  = all("parsed_query", "parsed_body", "truncated_body")
)

// missing names what the policy may have read and the line does not have. The masked paths are no longer in it.
func (r *Replay) missing(p policy.Policy, req Request, masked [][]string, failed bool) []string {
	names := slices.Clone(p.Effects)
	for _, read := range p.Reads {
		if failed || !r.has(read, req, masked) {
			names = append(names, read.Name)
		}
	}
	return names
}

func (r *Replay) has(read policy.Read, req Request, masked [][]string) bool {
	if req.RawHeaders && overlap(read.Path, headersPath) || req.LongMethod && overlap(read.Path, methodPath) {
		return false
	}
	if req.Unreadable && slices.ContainsFunc(unreadable, func(p []string) bool { return overlap(read.Path, p) }) {
		return false
	}
	if len(masked) > 0 && !read.Exists && touched(masked, [][]string{append([]string{"input"}, read.Path...)}) {
		return false
	}
	return slices.ContainsFunc(r.sources, func(s source) bool {
		if s.exist && !read.Exists || len(read.Path) < len(s.path) || !overlap(read.Path, s.path) {
			return false
		}
		return len(masked) == 0 || !touched(masked, s.from)
	})
}
