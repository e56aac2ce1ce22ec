package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/dependencies"
)

// A Policy says which policy decides, and what its decisions may depend on besides its own rules and data. Nobody may
// change its slices.
type Policy struct {
	// Revision is that of [Engine.Revision].
	Revision string
	// Reads are the parts of the input that the deciding rule may read, sorted, none below another. They are never too few:
	// what Rego computes at run time counts as all of what it is computed from.
	Reads []Read
	// Effects are the functions in the policy whose answers the input does not tell, such as http.send, sorted. The clock
	// (time.now_ns) is not among them.
	Effects []string

	program *program // for its rules about the log
}

// A Read is a part of the input that a rule may read.
type Read struct {
	// Name is how Rego writes it: input.attributes.request.http.headers["x-tenant"].
	Name string
	// Path is the names below input; empty for all of it. In [DialectOPAEnvoy] it is where [Input] has the same, or begins
	// with a name that Input does not have.
	Path []string
	// Exists is set if the rule asks only whether there is something, as "not input.token" does.
	Exists bool
}

// about finds what the deciding rule may depend on.
func about(compiler *ast.Compiler, decision ast.Ref, dialect Dialect, found *depends) (Policy, error) {
	refs, err := dependencies.Base(compiler, ast.NewBody(ast.NewExpr(ast.NewTerm(decision))))
	if err != nil {
		return Policy{}, fmt.Errorf("what the policy reads: %w", err)
	}
	var reads []Read
	for _, ref := range refs {
		if !ref.HasPrefix(ast.InputRootRef) {
			continue
		}
		read := readOf(compiler, ref)
		if reads = append(reads, read); read.Exists {
			reads = append(reads, below(compiler, ref)...)
		}
	}
	// OPA's analysis misses a rule that gives one part of another rule's object.
	for _, r := range found.reads {
		reads = append(reads, Read{Name: nameOf(r.path), Path: r.path, Exists: r.exists && len(r.path) == 1})
	}
	reads = leastOf(reads)
	if dialect == DialectOPAEnvoy {
		for i := range reads {
			reads[i].Path = fromOPAEnvoy(reads[i].Path)
		}
	}
	return Policy{Reads: reads, Effects: effects(compiler)}, nil
}

func readOf(compiler *ast.Compiler, ref ast.Ref) Read {
	n := 1
	for n < len(ref) {
		if _, ok := ref[n].Value.(ast.String); !ok {
			break
		}
		n++
	}
	known := ref[:n]
	r := Read{Name: known.String()}
	for _, term := range known[1:] {
		name, _ := term.Value.(ast.String)
		r.Path = append(r.Path, string(name))
	}
	// Of an object it is enough to know that it is there. Another value is asked for whether it is false.
	if len(ref) == 2 && n == 2 && (r.Path[0] == "token" || r.Path[0] == "route") {
		r.Exists = onlyAsked(compiler, ref)
	}
	return r
}

// onlyAsked reports whether ref stands nowhere but alone, as in "not input.token".
func onlyAsked(compiler *ast.Compiler, ref ast.Ref) bool {
	stands, alone := 0, 0
	for _, m := range compiler.Modules {
		ast.WalkRefs(m, func(r ast.Ref) bool {
			if r.Equal(ref) {
				stands++
			}
			return false
		})
		ast.WalkExprs(m, func(e *ast.Expr) bool {
			if t, ok := e.Terms.(*ast.Term); ok && t.Value.Compare(ref) == 0 {
				alone++
			}
			return false
		})
	}
	return stands == alone
}

// below returns what any module reads below ref. OPA names only ref itself where a rule reads both.
func below(compiler *ast.Compiler, ref ast.Ref) []Read {
	var reads []Read
	for _, m := range compiler.Modules {
		ast.WalkRefs(m, func(r ast.Ref) bool {
			if len(r) > len(ref) && r.HasPrefix(ref) {
				reads = append(reads, readOf(compiler, r))
			}
			return false
		})
	}
	return reads
}

// leastOf sorts reads and leaves out those below others.
func leastOf(reads []Read) []Read {
	slices.SortFunc(reads, func(a, b Read) int {
		if order := slices.Compare(a.Path, b.Path); order != 0 || a.Exists == b.Exists {
			return order
		}
		if a.Exists { // after the one that says more
			return 1
		}
		return -1
	})
	var least []Read
	for _, r := range reads {
		if n := len(least); n > 0 && !least[n-1].Exists && len(least[n-1].Path) <= len(r.Path) &&
			slices.Equal(least[n-1].Path, r.Path[:len(least[n-1].Path)]) {
			continue
		}
		least = append(least, r)
	}
	return slices.CompactFunc(least, func(a, b Read) bool { return a.Name == b.Name })
}

// fromOPAEnvoy returns where Input has what is at path in that dialect. Its paths are not canonical.
func fromOPAEnvoy(path []string) []string {
	switch {
	case len(path) > 1 && path[0] == "extauthz":
		return path[1:]
	case len(path) > 0 && path[0] != "attributes" && path[0] != "source_principal":
		return append([]string{"opa-envoy"}, path...)
	}
	return path
}

// effects finds the functions that may answer differently when they are called again.
func effects(compiler *ast.Compiler) []string {
	var names []string
	for _, m := range compiler.Modules {
		ast.WalkTerms(m, func(t *ast.Term) bool {
			if ref, ok := t.Value.(ast.Ref); ok && !ref.HasPrefix(ast.InputRootRef) {
				names = appendEffect(names, ref.String())
			}
			return false
		})
		ast.WalkExprs(m, func(e *ast.Expr) bool {
			if e.IsCall() {
				names = appendEffect(names, e.Operator().String())
			}
			return false
		})
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func appendEffect(names []string, function string) []string {
	b, ok := ast.BuiltinMap[strings.TrimPrefix(function, "data.")]
	if ok && b.IsNondeterministic() && b.Name != ast.NowNanos.Name {
		return append(names, b.Name)
	}
	return names
}
