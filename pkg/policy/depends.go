package policy

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// A Dependency is something that decisions depend on, and where the policy says so.
type Dependency struct {
	// Name is how Rego writes it: input.token.scopes, or the name of a function.
	Name string
	// Exists is set if only whether it is there counts.
	Exists bool
	// Why says what keeps decisions that depend on it from being remembered. Empty if nothing does.
	Why string
	// File, Row and Col are its first place, as in [Problem]. Empty and zero if it has none.
	File     string
	Row, Col int
}

// depends collects what a rule may depend on besides rules and data. It is never too little: Rego has no way to the input
// but a reference that begins with input, so each of them counts as far as its names are fixed, and a value that goes
// anywhere else than into such a reference counts as a whole.
type depends struct {
	compiler *ast.Compiler
	seen     map[*ast.Rule]bool
	asked    map[string]bool // constant parts of references to data
	queue    []*ast.Rule
	reads    []inputRead
	against  []Dependency

	aliases map[ast.Var]ast.Ref // of the rule at hand: what a local name stands for
	at      *ast.Location       // of the expression at hand
}

// An inputRead is a part of the input that a rule reads.
type inputRead struct {
	path   []string // below input
	exists bool     // only whether it is there, and where the way to it ends
	at     *ast.Location
}

// dependsOn finds what the decision depends on.
func dependsOn(compiler *ast.Compiler, decision ast.Ref) *depends {
	d := &depends{compiler: compiler, seen: map[*ast.Rule]bool{}, asked: map[string]bool{}}
	d.data(decision)
	for len(d.queue) > 0 {
		r := d.queue[0]
		d.queue = d.queue[1:]
		d.rule(r)
	}
	d.reads = leastReads(d.reads)
	slices.SortStableFunc(d.against, func(a, b Dependency) int { return strings.Compare(a.Name, b.Name) })
	d.against = slices.CompactFunc(d.against, func(a, b Dependency) bool { return a.Name == b.Name })
	return d
}

// rule collects from a rule and its else branches.
func (d *depends) rule(r *ast.Rule) {
	d.aliases, d.at = d.aliasesOf(r), r.Location
	d.walk(r)
	for rule := r; rule != nil; rule = rule.Else {
		if ref := rule.Head.Reference; len(ref) > 1 {
			for _, term := range ref[1:] {
				d.walk(term)
			}
		}
	}
}

func (d *depends) walk(x any) {
	ast.NewGenericVisitor(d.visit).Walk(x)
}

// visit collects from x, and reports whether what is below is done with.
func (d *depends) visit(x any) bool {
	switch x := x.(type) {
	case *ast.Expr:
		if x.Location != nil {
			d.at = x.Location
		}
		return d.expr(x)
	case ast.Call:
		d.function(x[0])
	case *ast.With:
		d.with(x)
		return true
	case ast.Ref:
		d.ref(x)
		return true
	case ast.Var:
		d.variable(x)
	}
	return false
}

// expr collects from an expression that needs more than a look at its parts.
func (d *depends) expr(x *ast.Expr) bool {
	if x.IsCall() {
		d.function(x.OperatorTerm())
	}
	if ref := aloneIn(x); ref != nil {
		d.read(ref, true)
		for _, with := range x.With {
			d.with(with)
		}
		return true
	}
	if v, path := aliasDefinition(x); v != "" && d.aliases[v] != nil {
		d.read(d.resolve(path), true)
		return true
	}
	if v, key, ok := constantGet(x); ok && d.aliases[v] != nil {
		d.read(append(slices.Clone(d.aliases[v]), key...), false)
		for _, term := range x.Operands()[2:] {
			d.walk(term)
		}
		for _, with := range x.With {
			d.with(with)
		}
		return true
	}
	return false
}

// with collects from a modifier. The target is not read, but its way must be there, or the evaluation fails.
func (d *depends) with(w *ast.With) {
	target, _ := w.Target.Value.(ast.Ref)
	switch {
	case len(target) > 1 && target.HasPrefix(ast.InputRootRef):
		d.read(target, true)
	case len(target) > 0 && !target.HasPrefix(ast.InputRootRef):
		d.ref(target)
	}
	d.walk(w.Value)
}

// ref collects from a reference and from what is computed inside.
func (d *depends) ref(ref ast.Ref) {
	for _, term := range ref[1:] {
		d.walk(term)
	}
	head, ok := ref[0].Value.(ast.Var)
	if !ok {
		d.walk(ref[0])
		return
	}
	switch {
	case ref.HasPrefix(ast.InputRootRef):
		d.read(ref, false)
	case ref.HasPrefix(ast.DefaultRootRef):
		d.data(ref)
	case d.aliases[head] != nil:
		d.read(append(slices.Clone(d.aliases[head]), ref[1:]...), false)
	default: // a function that is named as a value, in a with
		if b, ok := ast.BuiltinMap[ref.String()]; ok {
			d.builtin(b)
		}
	}
}

func (d *depends) variable(v ast.Var) {
	switch {
	case v.Equal(ast.InputRootDocument.Value):
		d.read(ast.InputRootRef, false)
	case v.Equal(ast.DefaultRootDocument.Value):
		d.data(ast.DefaultRootRef)
	case d.aliases[v] != nil:
		d.read(d.aliases[v], false) // aliasesOf leaves such names out; never too little all the same
	}
}

// data collects from a reference to rules and data: the rules that it may be about come next. Data is the policy's own.
func (d *depends) data(ref ast.Ref) {
	if path := d.throughRules(ref); path != nil {
		d.read(path, false)
		return
	}
	constant := ref.ConstantPrefix()
	key := constant.String()
	if d.asked[key] {
		return
	}
	d.asked[key] = true
	for _, r := range d.compiler.GetRulesDynamicWithOpts(constant, ast.RulesOptions{IncludeHiddenModules: true}) {
		if !d.seen[r] {
			d.seen[r] = true
			d.queue = append(d.queue, r)
		}
	}
}

func (d *depends) read(ref ast.Ref, exists bool) {
	path := namesOf(ref)
	// Where the names end early, the value is looked into by a computed one.
	d.reads = append(d.reads, inputRead{path: path, exists: exists && len(path) == len(ref)-1, at: d.at})
}

// namesOf are the names of a reference after its head, up to the first that is no fixed string.
func namesOf(ref ast.Ref) []string {
	var path []string
	for _, term := range ref[1:] {
		name, ok := term.Value.(ast.String)
		if !ok {
			break
		}
		path = append(path, string(name))
	}
	return path
}

// function collects from the operator of a call.
func (d *depends) function(operator *ast.Term) {
	ref, ok := operator.Value.(ast.Ref)
	if !ok {
		d.no(operator.String(), "is no function that is known")
		return
	}
	if ref.HasPrefix(ast.DefaultRootRef) {
		return // visited as a reference
	}
	b, ok := ast.BuiltinMap[ref.String()]
	if !ok {
		d.no(ref.String(), "is no function that is known")
		return
	}
	d.builtin(b)
}

func (d *depends) builtin(b *ast.Builtin) {
	why, listed := outside[b.Name]
	switch {
	case listed:
		d.no(b.Name, why)
	case b.IsNondeterministic():
		d.no(b.Name, "may answer differently the next time")
	}
}

// outside are builtin functions whose answer depends on more than their arguments, or that do more than answer, and why.
// Those that OPA marks and that are not here get a reason of their own. TestEveryBuiltinIsKnown holds the list of all
// others, so that a new function is looked at.
var outside = map[string]string{
	"time.now_ns":        "reads the clock",
	"http.send":          "talks to the network",
	"net.lookup_ip_addr": "talks to the network",
	"opa.runtime":        "reads the process environment",
	"rand.intn":          "depends on chance",
	"uuid.rfc4122":       "depends on chance",

	"io.jwt.decode_verify":   "reads the clock",
	"io.jwt.encode_sign":     "depends on chance",
	"io.jwt.encode_sign_raw": "depends on chance",

	// OPA does not mark these two. Go's crypto/x509 compares the certificates' times with the clock.
	"crypto.x509.parse_and_verify_certificates":              "reads the clock",
	"crypto.x509.parse_and_verify_certificates_with_options": "reads the clock",

	"trace": "is for looking at evaluations, and there would be none",
}

func (d *depends) no(name, why string) {
	dep := Dependency{Name: name, Why: why}
	dep.place(d.at)
	d.against = append(d.against, dep)
}

func (d *Dependency) place(at *ast.Location) {
	if at != nil {
		d.File, d.Row, d.Col = at.File, at.Row, at.Col
	}
}

// aliasesOf finds the local names of a rule that only stand for a fixed part of the input: x in "x := input.a; x.b == 1",
// which reads input.a.b and not all of input.a. Such a name has one definition, and stands nowhere else than at the head
// of references and as what object.get looks into.
func (d *depends) aliasesOf(r *ast.Rule) map[ast.Var]ast.Ref {
	definitions, bare := map[ast.Var][]ast.Ref{}, map[ast.Var]int{}
	var count func(x any) bool
	count = func(x any) bool {
		switch x := x.(type) {
		case *ast.Expr:
			if v, ref := aliasDefinition(x); v != "" {
				definitions[v] = append(definitions[v], ref)
			}
			if v, _, ok := constantGet(x); ok {
				bare[v]-- // which is counted below
			}
		case ast.Var:
			bare[x]++
		case ast.Ref:
			if _, named := x[0].Value.(ast.Var); !named {
				ast.NewGenericVisitor(count).Walk(x[0])
			}
			for _, term := range x[1:] {
				ast.NewGenericVisitor(count).Walk(term)
			}
			return true
		}
		return false
	}
	ast.NewGenericVisitor(count).Walk(r)
	for rule := r; rule != nil; rule = rule.Else {
		if len(rule.Head.Reference) > 0 {
			ast.NewGenericVisitor(count).Walk(rule.Head.Reference)
		}
	}
	return d.resolveAliases(definitions, bare)
}

// resolveAliases follows names to the input, also through each other.
func (d *depends) resolveAliases(definitions map[ast.Var][]ast.Ref, bare map[ast.Var]int) map[ast.Var]ast.Ref {
	d.aliases = map[ast.Var]ast.Ref{}
	for found := true; found; {
		found = false
		for v, refs := range definitions {
			if len(refs) != 1 || bare[v] != 1 || d.aliases[v] != nil {
				continue
			}
			if path := d.resolve(refs[0]); path != nil {
				d.aliases[v], found = path, true
			}
		}
	}
	return d.aliases
}

// resolve returns the reference into the input that ref stands for, if all its names are fixed; else nil.
func (d *depends) resolve(ref ast.Ref) ast.Ref {
	head, _ := ref[0].Value.(ast.Var)
	switch {
	case ref.HasPrefix(ast.DefaultRootRef):
		ref = d.throughRules(ref)
	case d.aliases[head] != nil:
		ref = append(slices.Clone(d.aliases[head]), ref[1:]...)
	}
	if len(ref) < 2 || !ref.HasPrefix(ast.InputRootRef) || len(namesOf(ref)) != len(ref)-1 {
		return nil
	}
	return ref
}

// throughRules returns the reference into the input that ref stands for, if it goes through a rule that only names a part of
// the input, as in "req := input.attributes.request"; else nil.
func (d *depends) throughRules(ref ast.Ref) ast.Ref {
	for n := 2; n <= len(ref); n++ {
		if _, fixed := ref[n-1].Value.(ast.String); !fixed {
			return nil
		}
		rules := d.compiler.GetRulesExact(ref[:n])
		if len(rules) == 0 {
			continue
		}
		if len(rules) != 1 || len(d.compiler.GetRulesWithPrefix(ref[:n])) != 1 {
			return nil
		}
		if path := d.named(rules[0]); path != nil {
			return append(slices.Clone(path), ref[n:]...)
		}
		return nil
	}
	return nil
}

// named returns the part of the input that a rule is another name of; nil if it is more than that.
func (d *depends) named(r *ast.Rule) ast.Ref {
	plain := !r.Default && r.Else == nil && len(r.Head.Args) == 0 && r.Head.Key == nil && r.Head.Value != nil &&
		r.Head.RuleKind() == ast.SingleValue && r.Head.Reference.IsGround()
	if !plain || len(r.Body) != 1 {
		return nil
	}
	v, ref := aliasDefinition(r.Body[0])
	if v == "" || r.Head.Value.Value.Compare(v) != 0 {
		return nil
	}
	inner := depends{compiler: d.compiler} // without the names of the rule at hand
	return inner.resolve(ref)
}

// aliasDefinition returns the parts of "v = ref", either way round; an empty name if x is anything else.
func aliasDefinition(x *ast.Expr) (ast.Var, ast.Ref) {
	if !x.IsEquality() || x.Negated || len(x.With) > 0 || len(x.Operands()) != 2 {
		return "", nil
	}
	for i, term := range x.Operands() {
		v, isVar := term.Value.(ast.Var)
		ref, isRef := x.Operand(1 - i).Value.(ast.Ref)
		if isVar && isRef {
			return v, ref
		}
	}
	return "", nil
}

// aloneIn returns what an expression like "not input.token" only asks the existence of: an object, which is never false.
func aloneIn(x *ast.Expr) ast.Ref {
	term, _ := x.Terms.(*ast.Term)
	if term == nil {
		return nil
	}
	ref, _ := term.Value.(ast.Ref)
	if !ref.HasPrefix(ast.InputRootRef) {
		return nil
	}
	names := namesOf(ref)
	if len(names) != len(ref)-1 {
		return nil
	}
	if len(names) == 2 && names[0] == "extauthz" {
		names = names[1:]
	}
	if len(names) == 1 && (names[0] == "token" || names[0] == "route") {
		return ref
	}
	return nil
}

// constantGet returns what an object.get with fixed names looks into, and the names.
func constantGet(x *ast.Expr) (ast.Var, ast.Ref, bool) {
	if !x.IsCall() || x.Operator().String() != ast.ObjectGet.Name || len(x.Operands()) < 3 {
		return "", nil, false
	}
	v, isVar := x.Operand(0).Value.(ast.Var)
	if !isVar {
		return "", nil, false
	}
	switch key := x.Operand(1).Value.(type) {
	case ast.String:
		return v, ast.Ref{x.Operand(1)}, true
	case *ast.Array:
		names := ast.Ref{}
		for i := range key.Len() {
			if _, ok := key.Elem(i).Value.(ast.String); !ok {
				return "", nil, false
			}
			names = append(names, key.Elem(i))
		}
		return v, names, len(names) > 0
	}
	return "", nil, false
}

// leastReads sorts reads and leaves out those that others include.
func leastReads(reads []inputRead) []inputRead {
	slices.SortStableFunc(reads, func(a, b inputRead) int {
		if order := slices.Compare(a.path, b.path); order != 0 || a.exists == b.exists {
			return order
		}
		if a.exists {
			return 1
		}
		return -1
	})
	below := func(a, b inputRead) bool { // whether b is at a or below
		return len(a.path) <= len(b.path) && slices.Equal(a.path, b.path[:len(a.path)])
	}
	var least []inputRead
	for i, r := range reads {
		switch n := len(least); {
		case n > 0 && !least[n-1].exists && below(least[n-1], r):
		case n > 0 && least[n-1].exists && slices.Equal(least[n-1].path, r.path):
		case r.exists && i+1 < len(reads) && len(reads[i+1].path) > len(r.path) && below(r, reads[i+1]):
			// What is encoded for the one below says where the way to it ends.
		default:
			least = append(least, r)
		}
	}
	return least
}
