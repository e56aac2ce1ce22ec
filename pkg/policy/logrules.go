package policy

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
)

// logPackage is where OPA looks for what a policy says about its decision log.
var logPackage = ast.MustParseRef("data.system.log")

// A LogVerdict is what the rules data.system.log.drop and data.system.log.mask say about one decision.
type LogVerdict struct {
	// Drop: the decision is not to be logged.
	Drop bool
	// Masked are the paths that the mask rule named, whether there was something or not.
	Masked [][]string
}

// logRules are the compiled rules; nil for one that the policy does not have.
type logRules struct {
	mask, drop *rego.PreparedEvalQuery
}

// splitLog takes the log's package out of the modules that decide: its input is another one.
func splitLog(modules map[string]*ast.Module) (decide map[string]*ast.Module, has bool) {
	decide = make(map[string]*ast.Module, len(modules))
	for name, m := range modules {
		if m.Package.Path.HasPrefix(logPackage) {
			has = true
			continue
		}
		decide[name] = m
	}
	return decide, has
}

// compileLog compiles the log rules, with all modules, which they may call.
func compileLog(ctx context.Context, modules map[string]*ast.Module, caps *ast.Capabilities, store storage.Store) (*logRules, error) {
	compiler := ast.NewCompiler().WithDefaultRegoVersion(ast.RegoV1).WithCapabilities(caps)
	if compiler.Compile(modules); compiler.Failed() {
		return nil, loadError(compiler.Errors)
	}
	rule := func(name string) (*rego.PreparedEvalQuery, error) {
		ref := logPackage.Append(ast.StringTerm(name))
		if len(compiler.GetRulesExact(ref)) == 0 {
			return nil, nil //nolint:nilnil // the policy has no such rule
		}
		query, err := rego.New(
			rego.ParsedQuery(ast.NewBody(ast.NewExpr(ast.NewTerm(ref)))), rego.Compiler(compiler), rego.Store(store),
		).PrepareForEval(ctx)
		if err != nil {
			return nil, loadError(err)
		}
		return &query, nil
	}
	mask, err1 := rule("mask")
	drop, err2 := rule("drop")
	return &logRules{mask, drop}, errors.Join(err1, err2)
}

// HasLogRules reports whether a policy has a rule data.system.log.mask or data.system.log.drop. The zero Policy is the one
// that decides now.
func (e *Engine) HasLogRules(by Policy) bool {
	p := e.programOf(by)
	return p != nil && p.log != nil && (p.log.mask != nil || p.log.drop != nil)
}

// programOf returns the program of the policy that decided: another one may decide by now, with other masks.
func (e *Engine) programOf(by Policy) *program {
	if by.program != nil {
		return by.program
	}
	return e.program.Load()
}

// MaskLog applies the policy's rules about its decision log to an event, as OPA does: data.system.log.drop first, then the
// masks of data.system.log.mask, which remove or upsert what is at a JSON pointer below /input, /result or
// /nd_builtin_cache. The event is both the rules' input and what is changed; the pointers of what was changed are added to
// it as erased and masked, of type []string. With an error, which a rule's failure is, the event is as it was.
//
// It evaluates in the caller's goroutine, until ctx ends. It is for where nobody waits for it.
func (e *Engine) MaskLog(ctx context.Context, by Policy, event map[string]any) (verdict LogVerdict, err error) {
	defer func() {
		if r := recover(); r != nil {
			verdict, err = LogVerdict{}, fmt.Errorf("policy: data.system.log: %w", panicError(r))
		}
	}()
	p := e.programOf(by)
	if p == nil || p.log == nil {
		return LogVerdict{}, nil
	}
	verdict, err = p.log.apply(ctx, event, e.cfg.Now())
	if err != nil {
		return LogVerdict{}, fmt.Errorf("policy: data.system.log: %w", err)
	}
	return verdict, nil
}

func (l *logRules) apply(ctx context.Context, event map[string]any, now time.Time) (LogVerdict, error) {
	var c converter
	input := c.object("event", event)
	if c.err != nil {
		return LogVerdict{}, c.err
	}
	eval := func(query *rego.PreparedEvalQuery) (any, error) {
		if query == nil {
			return nil, nil //nolint:nilnil // as if the rule were undefined
		}
		results, err := query.Eval(ctx, rego.EvalParsedInput(input), rego.EvalTime(now))
		if err != nil || len(results) == 0 {
			return nil, evalErrorOrNil(err)
		}
		return results[0].Expressions[0].Value, nil
	}
	drop, err := eval(l.drop)
	if err != nil || drop == true {
		return LogVerdict{Drop: drop == true}, err
	}
	value, err := eval(l.mask)
	if err != nil || value == nil {
		return LogVerdict{}, err
	}
	masks, err := masksOf(value)
	if err != nil {
		return LogVerdict{}, err
	}
	var verdict LogVerdict
	for _, m := range masks {
		m.apply(event)
		verdict.Masked = append(verdict.Masked, m.path)
	}
	return verdict, nil
}

func evalErrorOrNil(err error) error {
	if err == nil {
		return nil
	}
	return evalError(err)
}

// A mask is an element of data.system.log.mask. What follows does what OPA's v1/plugins/logs/mask.go does; a test compares
// the two.
type mask struct {
	upsert bool
	path   []string // escaped, as OPA compares it
	value  any
}

func masksOf(value any) ([]mask, error) {
	list, ok := value.([]any)
	if !ok {
		return nil, fmt.Errorf("mask is a %T, want a set or a list", value)
	}
	masks := make([]mask, len(list))
	for i, item := range list {
		m, err := maskOf(item)
		if err != nil {
			return nil, err
		}
		masks[i] = m
	}
	return masks, nil
}

func maskOf(item any) (mask, error) {
	var op, pointer string
	var value any
	switch item := item.(type) {
	case string:
		op, pointer = "remove", item
	case map[string]any:
		op, _ = item["op"].(string)
		pointer, _ = item["path"].(string)
		value = item["value"]
	default:
		return mask{}, fmt.Errorf("an element of mask is a %T, want a string or an object", item)
	}
	if op != "remove" && op != "upsert" {
		return mask{}, errors.New(`an element of mask has another op, want "remove" or "upsert"`)
	}
	path := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	if !strings.HasPrefix(pointer, "/") || !slices.Contains([]string{"input", "result", "nd_builtin_cache"}, path[0]) {
		return mask{}, errors.New("an element of mask has another path, want one that begins with /input, /result or /nd_builtin_cache")
	}
	for i, part := range path {
		if _, err := url.PathUnescape(part); err != nil {
			return mask{}, errors.New("the path of an element of mask has a bad escape")
		}
		path[i] = url.PathEscape(part)
	}
	return mask{upsert: op == "upsert", path: path, value: value}, nil
}

func (m mask) apply(event map[string]any) {
	if event[m.path[0]] == nil {
		return
	}
	var list string
	var did bool
	if m.upsert {
		list, did = "masked", upsert(event, m.path, m.value)
	} else {
		list, did = "erased", remove(event, m.path)
	}
	if did {
		before, _ := event[list].([]string)
		event[list] = append(before, "/"+strings.Join(m.path, "/"))
	}
}

// descend returns what is at path; with grow, objects are made on the way where there is nothing.
func descend(node any, path []string, grow bool) any {
	for _, part := range path {
		switch parent := node.(type) {
		case map[string]any:
			child, ok := parent[part]
			if !ok && grow {
				child = map[string]any{}
				parent[part] = child
			}
			node = child
		case []any:
			i, ok := index(parent, part)
			if !ok {
				return nil
			}
			node = parent[i]
		default:
			return nil
		}
	}
	return node
}

func index(list []any, part string) (int, bool) {
	i, err := strconv.Atoi(part)
	return i, err == nil && i >= 0 && i < len(list)
}

func remove(event map[string]any, path []string) bool {
	last := path[len(path)-1]
	switch parent := descend(event, path[:len(path)-1], false).(type) {
	case map[string]any:
		_, ok := parent[last]
		delete(parent, last)
		return ok
	case []any:
		i, ok := index(parent, last)
		if ok {
			shorter := slices.Delete(slices.Clone(parent), i, i+1)
			return replace(event, path[:len(path)-1], shorter)
		}
	}
	return false
}

func upsert(event map[string]any, path []string, value any) bool {
	if len(path) > 1 && !container(event[path[0]]) {
		return false
	}
	if descend(event, path[:len(path)-1], true) == nil {
		return false
	}
	return replace(event, path, value)
}

func container(node any) bool {
	switch node.(type) {
	case map[string]any, []any:
		return true
	}
	return false
}

// replace puts value at path, whose parent is there.
func replace(event map[string]any, path []string, value any) bool {
	last := path[len(path)-1]
	switch parent := descend(event, path[:len(path)-1], false).(type) {
	case map[string]any:
		parent[last] = value
		return true
	case []any:
		if i, ok := index(parent, last); ok {
			parent[i] = value
			return true
		}
	}
	return false
}
