package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
)

// A mutant is one check left out or loosened. Its id is its index plus one; zero is the package as it is.
type mutant struct {
	key  string // file, function and change: the same wherever the lines move to
	line int
}

// An insertion wraps a piece of a file, so that a mutant can be switched on there. Insertions nest as the syntax does.
type insertion struct {
	start, end    int // byte offsets
	before, after string
}

// A finder goes through a package and notes each mutant of it.
type finder struct {
	pkg        *source
	mutants    []mutant
	insertions map[string][]insertion // by file
	limits     map[types.Object]int   // the id of the mutant that doubles a constant
	loops      map[ast.Node]bool      // conditions of for, which are no checks: they would make loops that do not end
	count      map[string]int         // how often a key occurs
}

func find(pkg *source) *finder {
	f := &finder{
		pkg: pkg, insertions: make(map[string][]insertion), limits: make(map[types.Object]int),
		loops: make(map[ast.Node]bool), count: make(map[string]int),
	}
	for _, file := range pkg.files {
		ast.PreorderStack(file, nil, f.visit)
	}
	return f
}

func (f *finder) visit(n ast.Node, stack []ast.Node) bool {
	if f.loops[n] {
		return false
	}
	switch n := n.(type) {
	case *ast.GenDecl:
		return n.Tok != token.CONST // a limit is doubled where it is used
	case *ast.ArrayType:
		return false // its length must stay a constant
	case *ast.ForStmt:
		f.loops[n.Cond] = n.Cond != nil
	case *ast.IfStmt:
		f.condition(n.Cond, n.Init, n.Body.List, stack)
	case *ast.CaseClause:
		if s, ok := stack[len(stack)-2].(*ast.SwitchStmt); ok && s.Tag == nil {
			for _, cond := range n.List {
				f.condition(cond, nil, n.Body, stack)
			}
		}
	case *ast.BinaryExpr:
		f.operands(n, stack)
		f.comparison(n, stack)
	case *ast.CallExpr:
		f.times(n, stack)
	case *ast.ReturnStmt:
		f.results(n, stack)
	case *ast.CompositeLit:
		f.list(n, stack)
	case *ast.Ident:
		f.limit(n, stack)
	}
	return true
}

// condition makes the condition of a check never hold and, where it lets something through, always hold.
func (f *finder) condition(cond ast.Expr, init ast.Stmt, body []ast.Stmt, stack []ast.Node) {
	text := f.text(cond)
	if init != nil {
		text = f.text(init) + "; " + text
	}
	f.never(cond, f.add(cond, stack, "%s, never", text))
	if f.accepts(body, stack) {
		f.always(cond, f.add(cond, stack, "%s, always", text))
	}
}

// accepts reports whether the statements end the function with no error, or with true.
func (f *finder) accepts(body []ast.Stmt, stack []ast.Node) bool {
	if len(body) == 0 {
		return false
	}
	ret, ok := body[len(body)-1].(*ast.ReturnStmt)
	results := f.signature(stack).Results()
	if !ok || len(ret.Results) == 0 || len(ret.Results) != results.Len() {
		return false
	}
	last := f.pkg.info.Types[ret.Results[len(ret.Results)-1]]
	return isError(results.At(results.Len()-1).Type()) && last.IsNil() || last.Value != nil && last.Value.ExactString() == "true"
}

// operands leaves out each operand of || and &&.
func (f *finder) operands(n *ast.BinaryExpr, stack []ast.Node) {
	leaveOut := map[token.Token]func(ast.Node, int){token.LOR: f.never, token.LAND: f.always}[n.Op]
	if leaveOut == nil {
		return
	}
	for _, operand := range []ast.Expr{n.X, n.Y} {
		if same, ok := operand.(*ast.BinaryExpr); !ok || same.Op != n.Op {
			leaveOut(operand, f.add(operand, stack, "%s, without %s", f.text(chain(n, stack)), f.text(operand)))
		}
	}
}

// chain returns the whole of a || b || c, given its first half.
func chain(n *ast.BinaryExpr, stack []ast.Node) *ast.BinaryExpr {
	for _, outer := range slices.Backward(stack) {
		b, ok := outer.(*ast.BinaryExpr)
		if !ok || b.Op != n.Op {
			break
		}
		n = b
	}
	return n
}

// comparison moves the border of a comparison of numbers by one.
func (f *finder) comparison(n *ast.BinaryExpr, stack []ast.Node) {
	x, y := f.pkg.info.Types[n.X], f.pkg.info.Types[n.Y]
	if !isNumber(x.Type) || !isNumber(y.Type) || x.Value != nil && y.Value != nil {
		return
	}
	moved := func(to, format string) {
		id := f.add(n, stack, "%s, as %s", f.text(n), to)
		f.wrap(n, "(", fmt.Sprintf(format, id, f.text(n.X), f.text(n.Y)))
	}
	switch n.Op {
	case token.LSS, token.GTR:
		moved(n.Op.String()+"=", " || mutated(%d) && %s == %s)")
	case token.LEQ, token.GEQ:
		moved(n.Op.String()[:1], " && !(mutated(%d) && %s == %s))")
	case token.NEQ:
		if y.Value == nil || y.Value.ExactString() != "0" { // what has a length has none below zero
			moved("<", " && !(mutated(%d) && %s > %s))")
			moved(">", " && !(mutated(%d) && %s < %s))")
		}
	}
}

// times moves the border of a comparison of times: equal times are taken for ordered.
func (f *finder) times(n *ast.CallExpr, stack []ast.Node) {
	sel, ok := n.Fun.(*ast.SelectorExpr)
	if !ok || len(n.Args) != 1 || sel.Sel.Name != "Before" && sel.Sel.Name != "After" {
		return
	}
	if t := f.pkg.info.TypeOf(sel.X); t == nil || t.String() != "time.Time" {
		return
	}
	id := f.add(n, stack, "%s, or equal", f.text(n))
	f.wrap(n, "(", fmt.Sprintf(" || mutated(%d) && %s.Equal(%s))", id, f.text(sel.X), f.text(n.Args[0])))
}

// results makes a bool that is returned true, and takes away the error at the end of a function.
func (f *finder) results(n *ast.ReturnStmt, stack []ast.Node) {
	results := f.signature(stack).Results()
	if len(n.Results) != results.Len() {
		return
	}
	_, atEnd := stack[len(stack)-2].(*ast.FuncDecl)
	for i, r := range n.Results {
		value := f.pkg.info.Types[r]
		binary, _ := r.(*ast.BinaryExpr)
		joined := binary != nil && (binary.Op == token.LOR || binary.Op == token.LAND) // see operands
		switch t := results.At(i).Type(); {
		case types.Identical(t, types.Typ[types.Bool]) && value.Value == nil && !joined:
			f.always(r, f.add(r, stack, "return %s, as true", f.text(r)))
		case isError(t) && atEnd && !value.IsNil():
			f.wrap(r, fmt.Sprintf("mutatedError(%d, ", f.add(r, stack, "return %s, without the error", f.text(r))), ")")
		}
	}
}

// list leaves out each item of a list of strings or functions, and of a map whose keys are constants.
func (f *finder) list(n *ast.CompositeLit, stack []ast.Node) {
	var items []string
	for _, item := range n.Elts {
		pair, isPair := item.(*ast.KeyValueExpr)
		if isPair {
			item = pair.Key
		}
		value := f.pkg.info.Types[item]
		_, isFunc := underlying(value.Type).(*types.Signature)
		if isConst := value.Value != nil && value.Type != nil; !isFunc && (!isConst || !isPair && !isString(value.Type)) {
			return
		}
		items = append(items, f.text(item))
	}
	if n.Type == nil || len(items) == 0 {
		return
	}
	helper, end := "mutatedList", ")"
	switch underlying(f.pkg.info.TypeOf(n)).(type) {
	case *types.Slice:
	case *types.Map:
		helper, end = "mutatedMap", ", "+strings.Join(items, ", ")+")"
	default:
		return
	}
	f.wrap(n, fmt.Sprintf("%s(%d, ", helper, len(f.mutants)+1), end)
	for _, item := range items {
		f.add(n, stack, "%s, without %s", f.nameOf(stack), item)
	}
}

// nameOf says what a list is assigned to.
func (f *finder) nameOf(stack []ast.Node) string {
	switch parent := stack[len(stack)-1].(type) {
	case *ast.ValueSpec:
		return f.text(parent.Names[0])
	case *ast.AssignStmt:
		return f.text(parent.Lhs[0])
	}
	return "list"
}

// limit doubles a constant of the package that is a number, in all places at once.
func (f *finder) limit(n *ast.Ident, stack []ast.Node) {
	c, ok := f.pkg.info.Uses[n].(*types.Const)
	if !ok || c.Pkg() != f.pkg.types || !isNumber(c.Type()) {
		return
	}
	id := f.limits[c]
	if id == 0 {
		id = f.add(n, nil, "%s, doubled", n.Name)
		f.limits[c] = id
	}
	typeOf := ""
	if basic, ok := f.constant(n, stack).(*types.Basic); ok {
		typeOf = "[" + types.Default(basic).String() + "]" // else it would be an int, whatever it is compared with
	}
	f.wrap(n, fmt.Sprintf("mutatedLimit%s(%d, ", typeOf, id), ")")
}

// constant returns the type of the constant expression that n is in: go/types says of the whole alone what it becomes.
func (f *finder) constant(n ast.Expr, stack []ast.Node) types.Type {
	for _, outer := range slices.Backward(stack) {
		e, ok := outer.(ast.Expr)
		if !ok || f.pkg.info.Types[e].Value == nil {
			break
		}
		n = e
	}
	return f.pkg.info.TypeOf(n)
}

// ---- What they are made of

func (f *finder) never(n ast.Node, id int) { f.wrap(n, fmt.Sprintf("(!mutated(%d) && (", id), "))") }

func (f *finder) always(n ast.Node, id int) { f.wrap(n, fmt.Sprintf("(mutated(%d) || (", id), "))") }

func (f *finder) wrap(n ast.Node, before, after string) {
	at, end := f.pkg.fset.Position(n.Pos()), f.pkg.fset.Position(n.End())
	f.insertions[at.Filename] = append(f.insertions[at.Filename], insertion{at.Offset, end.Offset, before, after})
}

// add notes a mutant and returns its id.
func (f *finder) add(n ast.Node, stack []ast.Node, format string, args ...any) int {
	at := f.pkg.fset.Position(n.Pos())
	key := fmt.Sprintf("%s %s: %s", filepath.Base(at.Filename), function(stack), fmt.Sprintf(format, args...))
	f.count[key]++
	if again := f.count[key]; again > 1 {
		key += fmt.Sprintf(" (%d)", again)
	}
	f.mutants = append(f.mutants, mutant{key, at.Line})
	return len(f.mutants)
}

// function names the function around a node, as in pool.times.
func function(stack []ast.Node) string {
	for _, n := range stack {
		if decl, ok := n.(*ast.FuncDecl); ok {
			if decl.Recv == nil {
				return decl.Name.Name
			}
			return strings.TrimPrefix(types.ExprString(decl.Recv.List[0].Type), "*") + "." + decl.Name.Name
		}
	}
	return "package"
}

func (f *finder) signature(stack []ast.Node) *types.Signature {
	for _, n := range slices.Backward(stack) {
		switch n := n.(type) {
		case *ast.FuncLit:
			return f.pkg.info.TypeOf(n).(*types.Signature)
		case *ast.FuncDecl:
			return f.pkg.info.Defs[n.Name].Type().(*types.Signature)
		}
	}
	return new(types.Signature)
}

// text returns the source of a node on one line.
func (f *finder) text(n ast.Node) string {
	at, end := f.pkg.fset.Position(n.Pos()), f.pkg.fset.Position(n.End())
	return strings.Join(strings.Fields(string(f.pkg.text[at.Filename][at.Offset:end.Offset])), " ")
}

// apply returns a file with all of its insertions.
func apply(text []byte, insertions []insertion) []byte {
	slices.SortStableFunc(insertions, func(a, b insertion) int { // what is around comes first
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(b.end, a.end))
	})
	before, after := make(map[int]string), make(map[int]string)
	for _, i := range insertions {
		before[i.start] += i.before
		after[i.end] = i.after + after[i.end]
	}
	var out []byte
	for offset := range len(text) + 1 {
		out = append(out, after[offset]+before[offset]...)
		if offset < len(text) {
			out = append(out, text[offset])
		}
	}
	return out
}

func underlying(t types.Type) types.Type {
	if t == nil {
		return nil
	}
	return t.Underlying()
}

// isNumber leaves out the numbers that are names for something: those with a type of their own.
func isNumber(t types.Type) bool {
	named, ok := t.(*types.Named)
	return isBasic(t, types.IsInteger|types.IsFloat) && (!ok || named.String() == "time.Duration")
}

func isBasic(t types.Type, info types.BasicInfo) bool {
	b, ok := underlying(t).(*types.Basic)
	return ok && b.Info()&info != 0
}

func isString(t types.Type) bool { return isBasic(t, types.IsString) }
func isError(t types.Type) bool  { return types.Identical(t, types.Universe.Lookup("error").Type()) }
