package decisionlog

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// A field is one of a line. Its comment, doc, is a row of docs/decision-log.md.
type field struct {
	name string
	doc  string
	// path is where the policy has the value: a mask rule names it so. Empty for what no rule can mask.
	path []string
	// twins are where the policy has the same value once more, or one that it can be told from. A rule that masks one of
	// them erases the field.
	twins [][]string
	get   func(d *Decision) value
}

// at splits a JSON pointer.
func at(pointer string) []string { return strings.Split(strings.TrimPrefix(pointer, "/"), "/") }

func all(pointers ...string) [][]string {
	paths := make([][]string, len(pointers))
	for i, p := range pointers {
		paths[i] = at(p)
	}
	return paths
}

const http = "/input/attributes/request/http"

var fields = []field{
	{name: "time", doc: "when the check began: RFC 3339, in UTC, with nanoseconds", get: func(d *Decision) value { return value{kind: isTime, time: d.Time} }},
	{name: "level", doc: "`ERROR` if the check failed, else `INFO`", get: level},
	{name: "msg", doc: "`check`, which tells the line from those of the service's own log", get: func(*Decision) value { return text("check") }},
	{name: "decision_id", doc: "the id that the caller got, and that Envoy's access log can show: 32 hex digits", get: func(d *Decision) value { return always(d.ID) }},
	{name: "outcome", doc: "`allowed`, `refused`, `denied` or `failed`", get: func(d *Decision) value { return always(d.Outcome) }},
	{name: "reason", doc: "why: a row of [reasons.md](reasons.md), or one of `policy.reasons`", get: func(d *Decision) value { return always(d.Reason) }},
	{name: "status", doc: "the HTTP status of the answer. Absent if the request was allowed", get: func(d *Decision) value { return positive(d.Status) }},
	{
		name: "detail", doc: "what was found and wanted, or the policy's own word. It can quote the `iss` and `client_id` of a token that was not accepted",
		path: at("/result/detail"), twins: all("/input/token/client_id", "/input/token/issuer", "/input/token/claims/client_id", "/input/token/claims/iss"),
		get: func(d *Decision) value { return text(d.Detail) },
	},
	{
		name: "method", doc: "the method, at most 32 bytes of it",
		path: at(http + "/method"), twins: all(http + "/headers/:method"), get: func(d *Decision) value { return text(d.Method) },
	},
	{
		name: "host", doc: "the canonical host",
		path: at("/input/canonical/host"), twins: all(http+"/host", http+"/headers/:authority", http+"/headers/host"),
		get: func(d *Decision) value { return text(d.Host) },
	},
	{
		name: "path", doc: "the canonical path, without the query",
		path: at("/input/canonical/path"), twins: all(http+"/path", http+"/headers/:path", "/input/parsed_path", "/input/route/params"),
		get: func(d *Decision) value { return text(d.Path) },
	},
	{name: "route", doc: "the name of the route that matched. Absent if none did", path: at("/input/route/name"), get: func(d *Decision) value { return text(d.Route) }},
	{
		name: "pool", doc: "the pool of the verified token. This and the next four are absent without one",
		path: at("/input/token/pool"), twins: all("/input/token/issuer", "/input/token/claims/iss"), get: func(d *Decision) value { return text(d.Pool) },
	},
	{name: "client", doc: "the configured name of the app client, if it has one", path: at("/input/token/client_name"), get: func(d *Decision) value { return text(d.Client) }},
	{
		name: "client_id", doc: "the id of the app client",
		path:  at("/input/token/client_id"),
		twins: all("/input/token/claims/client_id", "/input/token/subject", "/input/token/claims/sub"),
		get:   func(d *Decision) value { return text(d.ClientID) },
	},
	{
		name: "scopes", doc: "the token's scopes, a list",
		path: at("/input/token/scopes"), twins: all("/input/token/claims/scope"), get: scopes,
	},
	{
		name: "jti", doc: "the token's id",
		path: at("/input/token/token_id"), twins: all("/input/token/claims/jti"), get: func(d *Decision) value { return text(d.TokenID) },
	},
	{
		name: "source_principal", doc: "the identity of the peer by its certificate, if Envoy knows one",
		path: at("/input/source_principal"), twins: all("/input/attributes/source/principal"), get: func(d *Decision) value { return text(d.SourcePrincipal) },
	},
	{name: "policy_revision", doc: "the revision of the policy that decided. Absent if the policy was not asked", get: func(d *Decision) value { return text(d.Policy.Revision) }},
	{name: "config_revision", doc: "the revision of the configuration", get: func(d *Decision) value { return text(d.ConfigRevision) }},
	{
		name: "request_id", doc: "`x-request-id`, if it is of `[A-Za-z0-9._-]{1,64}`",
		path: at(http + "/headers/x-request-id"), twins: all(http + "/id"), get: func(d *Decision) value { return text(d.RequestID) },
	},
	{name: "trace_id", doc: "the trace that the check belongs to", get: func(d *Decision) value { return text(d.TraceID) }},
	{name: "sample_ratio", doc: "the share of such checks that is logged: the line stands for 1/`sample_ratio` checks", get: func(d *Decision) value { return value{kind: isRatio, ratio: d.SampleRatio} }},
	{name: "read_us", doc: "microseconds for each step of [the way](request.md) that was taken: read", get: func(d *Decision) value { return d.Read.micros() }},
	{name: "route_us", doc: "… route", get: func(d *Decision) value { return d.ToRoute.micros() }},
	{name: "authenticate_us", doc: "… authenticate", get: func(d *Decision) value { return d.Authenticate.micros() }},
	{name: "authorize_us", doc: "… authorize", get: func(d *Decision) value { return d.Authorize.micros() }},
	{name: "respond_us", doc: "… respond", get: func(d *Decision) value { return d.Respond.micros() }},
	{name: "took_us", doc: "microseconds from the CheckRequest to the answer", get: func(d *Decision) value { return number(d.Took.Microseconds()) }},
}

// lastFields are those that depend on the others. record.last makes them; these are their rows in the manual.
var lastFields = []field{
	{name: "headers.NAME", doc: "a header that `decisionLog.include` names. Absent if the request does not have it", path: at(http + "/headers/NAME")},
	{name: "query.NAME", doc: "a query parameter that it names, decoded: text, or a list if it is there more than once", path: at("/input/parsed_query/NAME")},
	{name: "claims.NAME", doc: "a claim of the verified token that it names, as it is in the token", path: at("/input/token/claims/NAME")},
	{name: "replayable", doc: "whether the line has all that the policy may have read; see below"},
	{name: "missing", doc: "if it has not: what is missing, as a policy would name it"},
	{name: "erased", doc: "what mask rules have taken out of the line, as JSON pointers"},
	{name: "masked", doc: "what mask rules have replaced"},
	{name: "mask_failed", doc: "`true` if a mask rule failed. All that a rule could mask is left out of the line then"},
}

// path is where the policy has an included value.
func (f Included) path() []string {
	switch f.Kind {
	case Headers:
		return append(at(http+"/headers"), f.Name)
	case Query:
		return []string{"input", "parsed_query", f.Name}
	default:
		return []string{"input", "token", "claims", f.Name}
	}
}

// twins are what tells an included value as well: of a query parameter, the path as it was sent.
func (f Included) twins() [][]string {
	if f.Kind == Query {
		return all(http+"/path", http+"/query", http+"/headers/:path")
	}
	return nil
}

func (f Included) name() string { return string(f.Kind) + "." + f.Name }

// A value is that of a field. It has its kinds side by side, as an interface would have to be allocated.
type value struct {
	kind  kind
	text  string
	n     int64
	ratio float64
	time  time.Time
	list  []string
}

type kind byte

const (
	isAbsent kind = iota // and not in the line
	isText
	isNumber
	isRatio
	isTime
	isList
)

// text is absent if it is empty.
func text(s string) value {
	if s == "" {
		return value{}
	}
	return always(s)
}

// always is there even if it is empty.
func always(s string) value { return value{kind: isText, text: s} }

func number(n int64) value { return value{kind: isNumber, n: n} }

// any is the value as a policy's rules have it; nil if it is absent.
func (v value) any() any {
	switch v.kind {
	case isText:
		return v.text
	case isNumber:
		return v.n
	case isRatio:
		return v.ratio
	case isTime:
		return v.time.UTC().Format(time.RFC3339Nano)
	case isList:
		list := make([]any, len(v.list))
		for i, s := range v.list {
			list[i] = s
		}
		return list
	}
	return nil
}

// appendTo writes the value as JSON.
func (v value) appendTo(dst []byte) []byte {
	switch v.kind {
	case isText:
		return appendText(dst, v.text)
	case isNumber:
		return strconv.AppendInt(dst, v.n, 10)
	case isTime:
		return append(v.time.UTC().AppendFormat(append(dst, '"'), time.RFC3339Nano), '"')
	case isList:
		return appendTexts(dst, v.list)
	}
	return appendValue(dst, v.any())
}

func level(d *Decision) value {
	if d.Failed {
		return text("ERROR")
	}
	return text("INFO")
}

func scopes(d *Decision) value {
	if d.ClientID == "" && d.Pool == "" {
		return value{}
	}
	return value{kind: isList, list: d.Scopes}
}

func positive(i int) value {
	if i <= 0 {
		return value{}
	}
	return number(int64(i))
}

func (s Step) micros() value {
	if !s.Taken {
		return value{}
	}
	return number(s.Took.Microseconds())
}

// overlap reports whether one path is the other's beginning.
func overlap(a, b []string) bool {
	n := min(len(a), len(b))
	return slices.Equal(a[:n], b[:n])
}

// touched reports whether a path, or one of its twins, overlaps one of the masked paths.
func touched(masked, paths [][]string) bool {
	return slices.ContainsFunc(masked, func(m []string) bool {
		return slices.ContainsFunc(paths, func(p []string) bool { return overlap(m, p) })
	})
}
