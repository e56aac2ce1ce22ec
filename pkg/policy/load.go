package policy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/util"
	"go.yaml.in/yaml/v3"

	"github.com/cognito-extauthz/extauthz/policies"
)

// basePackage is where the built-in policy lives. A user's module in it would become part of it, so none may be.
const basePackage = "data.extauthz.base"

// A program is a compiled policy.
type program struct {
	query    rego.PreparedEvalQuery
	mayRead  func(field string) bool // reports whether the policy may read a field of the input, or one of that
	revision string
	about    Policy    // without the revision
	log      *logRules // nil: none
	caching  Caching
	cache    *decisionCache // nil: none
}

// load reads, checks and compiles what cfg names.
func load(ctx context.Context, cfg Config) (*program, error) {
	files, err := readAll(cfg)
	if err != nil {
		return nil, err
	}
	return files.compile(ctx, cfg)
}

// compile checks the files and makes a program of them.
func (f files) compile(ctx context.Context, cfg Config) (*program, error) {
	decision, err := parseDecisionRef(cfg.Decision)
	if err != nil {
		return nil, err
	}
	caps, err := capabilities(cfg.builtins())
	if err != nil {
		return nil, err
	}
	if len(f.ignored) > 0 {
		cfg.Logger.InfoContext(ctx, "files of the policy left out: data files are named data.json, data.yaml or data.yml", "files", f.ignored)
	}
	modules, err := parseModules(f.modules, caps)
	if err != nil {
		return nil, err
	}
	data, err := mergeData(f.data, decision)
	if err != nil {
		return nil, err
	}
	if err := addTables(data, cfg.Data, modules); err != nil {
		return nil, err
	}
	store := inmem.NewFromObjectWithOpts(data, inmem.OptReturnASTValuesOnRead(true))
	decide, hasLog := splitLog(modules)
	compiler, err := compile(ctx, decide, caps, store, cfg.Dialect)
	if err != nil {
		return nil, err
	}
	if err := checkDecisionRule(compiler, decision); err != nil && !cfg.decides(compiler, decision) {
		return nil, err
	}

	query, err := rego.New(
		rego.ParsedQuery(ast.NewBody(ast.NewExpr(ast.NewTerm(decision)))),
		rego.Compiler(compiler),
		rego.Store(store),
		rego.GenerateJSON(func(t *ast.Term, _ *rego.EvalContext) (any, error) { return t.Value, nil }),
	).PrepareForEval(ctx)
	if err != nil {
		return nil, loadError(err)
	}
	found := dependsOn(compiler, decision)
	p := &program{query: query, revision: f.revision(cfg), mayRead: mayRead(found)}
	if p.about, err = about(compiler, decision, cfg.Dialect, found); err != nil {
		return nil, err
	}
	if err := p.remember(found, cfg); err != nil {
		return nil, err
	}
	if hasLog {
		p.log, err = compileLog(ctx, modules, caps, store)
	}
	return p, err
}

// remember gives the program a cache if its decisions may be remembered.
func (p *program) remember(found *depends, cfg Config) (err error) {
	var parts []keyPart
	if p.caching, parts = caching(found, cfg); p.caching.Remembered {
		p.cache, err = newDecisionCache(parts, cfg.CacheBytes)
	}
	return err
}

// mayRead returns what tells which fields of the input the rule may read, and which fields of those, as "token.claims".
func mayRead(found *depends) func(field string) bool {
	fields, whole := make(map[string]bool), make(map[string]bool)
	for _, r := range found.reads {
		switch {
		case len(r.path) == 0:
			return func(string) bool { return true }
		case len(r.path) > 1:
			fields[r.path[0]+"."+r.path[1]] = true
		case !r.exists:
			whole[r.path[0]] = true
		}
		fields[r.path[0]] = true
	}
	return func(field string) bool {
		name, _, _ := strings.Cut(field, ".")
		return fields[field] || whole[name]
	}
}

// parseDecisionRef accepts data.<package>.<rule> and nothing that is computed.
func parseDecisionRef(text string) (ast.Ref, error) {
	ref, err := ast.ParseRef(text)
	if err != nil || !ref.IsGround() || len(ref) < 3 || !ref.HasPrefix(ast.DefaultRootRef) {
		return nil, fmt.Errorf("Decision is %q, want data, a package and a rule, such as %q", text, DefaultDecision)
	}
	return ref, nil
}

// A file is a policy or data file.
type file struct {
	name    string // for messages
	path    string // slash-separated, from the root of the policy
	builtIn bool
	content []byte
}

// files are what a policy is made of, sorted by path.
type files struct {
	modules []file
	data    []file
	ignored []string // paths of .json and .yaml files that are no data files by their name
}

// readAll returns the embedded and the user's files.
//
// The user's are read until two readings agree: a Kubernetes ConfigMap is switched from one version to the next between
// two opens, and a policy made of both is one that nobody wrote.
func readAll(cfg Config) (files, error) {
	all, err := embedded(policies.Base)
	if err != nil {
		return files{}, err
	}
	userFS, root := cfg.FS, ""
	if cfg.Dir != "" {
		userFS, root = os.DirFS(cfg.Dir), cfg.Dir
	}
	if userFS == nil {
		decision, err := embedded(policies.Decision)
		all.modules = append(all.modules, decision.modules...)
		return all, err
	}

	const attempts = 5
	before, errBefore := readFS(userFS, root)
	for range attempts {
		now, err := readFS(userFS, root)
		switch {
		case err != nil && errBefore != nil:
			return files{}, err
		case err == nil && errBefore == nil && before.equal(now):
			if len(now.modules) == 0 {
				return files{}, fmt.Errorf("no *.rego file in %s", called(root))
			}
			now.modules = append(all.modules, now.modules...)
			return now, nil
		}
		before, errBefore = now, err
	}
	return files{}, fmt.Errorf("%s changes while it is read", called(root))
}

// called is the name of the root of a policy in messages.
func called(root string) string {
	if root == "" {
		return "the policy's FS"
	}
	return strconv.Quote(root)
}

func embedded(name string) (files, error) {
	content, err := policies.FS.ReadFile(name)
	return files{modules: []file{{name: "built in: " + name, path: name, builtIn: true, content: content}}}, err
}

// inMemory returns the embedded files and those of content, by the same rules as a directory's. Nobody may change
// content afterwards.
func inMemory(content map[string][]byte) (files, error) {
	all, err := embedded(policies.Base)
	if err != nil {
		return files{}, err
	}
	var found files
	for _, p := range slices.Sorted(maps.Keys(content)) {
		if list := found.listOf(p); list != nil {
			*list = append(*list, file{name: p, path: strings.TrimPrefix(path.Clean("/"+p), "/"), content: content[p]})
		}
	}
	if len(found.modules) == 0 {
		return files{}, newLoadError([]Problem{{Message: "no Rego module, want at least one, whose name ends with .rego"}})
	}
	found.modules = append(all.modules, found.modules...)
	return found, nil
}

func (f files) equal(g files) bool {
	same := func(a, b file) bool { return a.path == b.path && bytes.Equal(a.content, b.content) }
	return slices.EqualFunc(f.modules, g.modules, same) && slices.EqualFunc(f.data, g.data, same)
}

// revision hashes everything that makes decisions what they are.
func (f files) revision(cfg Config) string {
	h := sha256.New()
	write := func(s string) { fmt.Fprintf(h, "%d:%s", len(s), s) }
	write(cfg.Decision)
	write(strings.Join(slices.Sorted(slices.Values(cfg.AllowBuiltins)), ","))
	if cfg.Dialect == DialectOPAEnvoy {
		write(string(cfg.Dialect) + strconv.FormatBool(cfg.ExtauthzInput))
	}
	if len(cfg.Data) > 0 {
		text, err := json.Marshal(cfg.Data) // its keys are sorted
		if err != nil {
			text = []byte(err.Error()) // New has refused what is no JSON
		}
		write(string(text))
	}
	for _, file := range slices.Concat(f.modules, f.data) {
		write(strconv.FormatBool(file.builtIn) + file.path)
		write(string(file.content))
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))[:12]
}

// Symbolic links to directories are followed, because a ConfigMap with items in folders is made of them. These bounds
// end a walk through links that go round in a circle.
const (
	maxDirDepth = 16
	maxFiles    = 10_000
)

// readFS returns the user's files below fsys; root is what messages call it.
func readFS(fsys fs.FS, root string) (files, error) {
	var found files
	seen := 0
	var walk func(dir string, depth int) error
	walk = func(dir string, depth int) error {
		if depth > maxDirDepth {
			return fmt.Errorf("%q is deeper than %d directories; a symbolic link that goes round?", dir, maxDirDepth)
		}
		entries, err := fs.ReadDir(fsys, dir)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if seen++; seen > maxFiles {
				return fmt.Errorf("more than %d files in %s; a symbolic link that goes round?", maxFiles, called(root))
			}
			if strings.HasPrefix(entry.Name(), ".") {
				continue
			}
			p := path.Join(dir, entry.Name())
			info, err := fs.Stat(fsys, p) // follows links, as entry does not
			if err != nil {
				return err
			}
			if info.IsDir() {
				err = walk(p, depth+1)
			} else {
				err = found.add(fsys, root, p, info.Mode())
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	err := walk(".", 0)
	return found, err
}

// add reads the file at p if its name says that it is a part of the policy.
func (f *files) add(fsys fs.FS, root, p string, mode fs.FileMode) error {
	list := f.listOf(p)
	if list == nil {
		return nil
	}
	if !mode.IsRegular() {
		return fmt.Errorf("%s is no regular file", p) // reading a pipe would wait for ever
	}
	content, err := fs.ReadFile(fsys, p)
	if err != nil {
		return err
	}
	*list = append(*list, file{name: filepath.Join(root, filepath.FromSlash(p)), path: p, content: content})
	return nil
}

// listOf returns the list that a file belongs to by its name; nil if it is no part of a policy.
func (f *files) listOf(p string) *[]file {
	switch name, ext := path.Base(p), path.Ext(p); {
	case strings.HasSuffix(name, "_test.rego"):
	case ext == ".rego":
		return &f.modules
	case name == "data.json", name == "data.yaml", name == "data.yml":
		return &f.data
	case ext == ".json", ext == ".yaml", ext == ".yml":
		f.ignored = append(f.ignored, p)
	}
	return nil
}

// parseModules parses all files, and returns the problems of all of them.
func parseModules(list []file, caps *ast.Capabilities) (map[string]*ast.Module, error) {
	modules := make(map[string]*ast.Module, len(list))
	var problems []Problem
	for _, f := range list {
		m, err := ast.ParseModuleWithOpts(f.name, string(f.content), ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: caps})
		switch {
		case err != nil:
			problems = append(problems, problemsOf(err)...)
		case m == nil:
			problems = append(problems, Problem{File: f.name, Message: "the file holds no package, want a Rego module"})
		case !f.builtIn && m.Package.Path.HasPrefix(ast.MustParseRef(basePackage)):
			loc := m.Package.Location
			problems = append(problems, Problem{
				File: f.name, Row: loc.Row, Col: loc.Col,
				Message: fmt.Sprintf("package %s is built in, want another package", strings.TrimPrefix(m.Package.Path.String(), "data.")),
				Hint:    "use its rules as " + basePackage + ".decision, or leave the file out",
			})
		default:
			modules[strconv.FormatBool(f.builtIn)+f.path] = m // no two files have the same
		}
	}
	if len(problems) > 0 {
		return nil, newLoadError(problems)
	}
	return modules, nil
}

// mergeData puts the content of each data file below the path of its directory. No file may say what another says, and
// none what rules say: data and rules of one name would make one document, which nobody wrote.
func mergeData(list []file, decision ast.Ref) (map[string]any, error) {
	data := map[string]any{}
	var problems []Problem
	for _, f := range list {
		content, err := decodeData(f)
		if err != nil {
			problems = append(problems, Problem{File: f.name, Message: err.Error()})
			continue
		}
		var tree any = content
		if dir := path.Dir(f.path); dir != "." {
			for _, name := range slices.Backward(strings.Split(dir, "/")) {
				tree = map[string]any{name: tree}
			}
		}
		if at, ok := merge(data, tree.(map[string]any)); !ok {
			problems = append(problems, Problem{File: f.name, Message: "data." + at + " is in another data file as well, want it in one"})
		}
	}
	for _, ref := range []ast.Ref{ast.MustParseRef(basePackage), decision} {
		if holds(data, ref) {
			problems = append(problems, Problem{Message: fmt.Sprintf("data files hold %s, which is for rules, want another name", ref)})
		}
	}
	if len(problems) > 0 {
		return nil, newLoadError(problems)
	}
	return data, nil
}

// addTables puts what the configuration says below data.extauthz. Its names are its own: a file or a rule that adds to
// one of them would make it say what nobody configured.
func addTables(data, tables map[string]any, modules map[string]*ast.Module) error {
	if len(tables) == 0 {
		return nil
	}
	var problems []Problem
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		ref := ast.Ref{ast.DefaultRootDocument, ast.StringTerm("extauthz"), ast.StringTerm(name)}
		if holds(data, ref) {
			problems = append(problems, Problem{Message: fmt.Sprintf("%s is in a data file and comes from the configuration, want another name in the file", ref)})
		}
		for _, m := range modules {
			if loc := m.Package.Location; m.Package.Path.HasPrefix(ref) {
				problems = append(problems, Problem{
					File: loc.File, Row: loc.Row, Col: loc.Col,
					Message: fmt.Sprintf("package %s comes from the configuration, want another package", strings.TrimPrefix(ref.String(), "data.")),
				})
			}
		}
	}
	if len(problems) > 0 {
		return newLoadError(problems)
	}
	merge(data, map[string]any{"extauthz": maps.Clone(tables)})
	return nil
}

// holds reports whether data has a value at ref, or one in the way that is no object.
func holds(data map[string]any, ref ast.Ref) bool {
	var at any = data
	for _, term := range ref[1:] {
		name, _ := term.Value.(ast.String)
		object, ok := at.(map[string]any)
		if !ok {
			break
		}
		if at, ok = object[string(name)]; !ok {
			return false
		}
	}
	return true
}

// merge adds src to dst; it returns the path at which both have a value.
func merge(dst, src map[string]any) (conflict string, ok bool) {
	for k, v := range src {
		have, exists := dst[k]
		if !exists {
			dst[k] = v
			continue
		}
		a, aok := have.(map[string]any)
		b, bok := v.(map[string]any)
		if !aok || !bok {
			return k, false
		}
		if conflict, ok := merge(a, b); !ok {
			return k + "." + conflict, false
		}
	}
	return "", true
}

// decodeData decodes a data file as OPA does, so that "opa test" sees the same, but for keys that are given twice: one
// of the two values would decide who gets in, and a reader may have seen the other.
func decodeData(f file) (map[string]any, error) {
	check := checkYAML
	if path.Ext(f.path) == ".json" {
		check = checkJSON
	}
	if err := check(f.content); err != nil {
		return nil, err
	}
	var value any
	if err := util.Unmarshal(f.content, &value); err != nil {
		return nil, err
	}
	m, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("the file holds no object, want one, whose keys become names below data")
	}
	return m, nil
}

func checkYAML(content []byte) error {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	if err := decoder.Decode(new(any)); err != nil { // refuses a key that is given twice
		return err
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return errors.New("the file holds several documents, want one")
	}
	return nil
}

func checkJSON(content []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(content))
	if err := checkValue(decoder); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("the file goes on after its value, want one value")
	}
	return nil
}

// checkValue reads one JSON value.
func checkValue(d *json.Decoder) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	open, _ := token.(json.Delim)
	seen := map[string]bool{}
	for open != 0 && d.More() {
		if open == '{' {
			key, err := d.Token()
			if err != nil {
				return err
			}
			name, _ := key.(string)
			if seen[name] {
				return fmt.Errorf("key %q is given twice, want it once", name)
			}
			seen[name] = true
		}
		if err := checkValue(d); err != nil {
			return err
		}
	}
	if open != 0 {
		_, err = d.Token() // the end of it
	}
	return err
}

func compile(ctx context.Context, modules map[string]*ast.Module, caps *ast.Capabilities, store storage.Store, dialect Dialect) (*ast.Compiler, error) {
	txn, err := store.NewTransaction(ctx)
	if err != nil {
		return nil, err
	}
	defer store.Abort(ctx, txn)

	compiler := ast.NewCompiler().
		WithDefaultRegoVersion(ast.RegoV1).
		WithCapabilities(caps).
		WithPathConflictsCheck(storage.NonEmpty(ctx, store, txn)) // data must not take the place of a rule
	if dialect == DialectExtauthz { // OPA-Envoy is not as strict, and what it takes has to load
		schemas := ast.NewSchemaSet()
		schemas.Put(ast.SchemaRootRef, inputSchema())
		compiler = compiler.WithStrict(true).WithSchemas(schemas)
	}
	if compiler.Compile(modules); compiler.Failed() {
		return nil, loadError(compiler.Errors)
	}
	return compiler, nil
}

// checkDecisionRule makes sure that a rule decides, and neither a package nor data: data below the same name would be
// a decision that nobody wrote.
func checkDecisionRule(compiler *ast.Compiler, decision ast.Ref) error {
	for _, rule := range compiler.GetRules(decision) {
		inPackage := len(rule.Module.Package.Path) < len(decision)
		if inPackage && len(rule.Head.Args) == 0 {
			return nil
		}
	}
	packages := map[string]bool{}
	for _, m := range compiler.Modules {
		packages[strings.TrimPrefix(m.Package.Path.String(), "data.")] = true
	}
	dot := len(decision) - 1
	return newLoadError([]Problem{{
		Message: fmt.Sprintf("no rule %s; found the packages %s", decision, strings.Join(slices.Sorted(maps.Keys(packages)), ", ")),
		Hint: fmt.Sprintf("the deciding rule is %q in package %s; to extend the built-in policy, define it with %s.decision",
			strings.Trim(decision[dot].Value.String(), `"`), strings.TrimPrefix(decision[:dot].String(), "data."), basePackage),
	}})
}

// loadError makes a LoadError of what OPA's parser or compiler returned.
func loadError(err error) error {
	return newLoadError(problemsOf(err))
}

func newLoadError(problems []Problem) *LoadError {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Row, b.Row), cmp.Compare(a.Col, b.Col))
	})
	return &LoadError{Problems: problems}
}

func problemsOf(err error) []Problem {
	var list ast.Errors
	var one *ast.Error
	switch {
	case errors.As(err, &list):
	case errors.As(err, &one):
		list = ast.Errors{one}
	default:
		return []Problem{{Message: err.Error()}}
	}

	problems := make([]Problem, len(list))
	for i, e := range list {
		p := Problem{Message: e.Code + ": " + e.Message, Hint: hintFor(e)}
		if e.Location != nil {
			p.File, p.Row, p.Col = e.Location.File, e.Location.Row, e.Location.Col
		}
		if e.Details != nil {
			p.Message += "\n\t" + strings.Join(e.Details.Lines(), "\n\t")
		}
		problems[i] = p
	}
	return problems
}

// hintFor tells a builtin function that is left out from one that does not exist.
func hintFor(e *ast.Error) string {
	name, found := strings.CutPrefix(e.Message, "undefined function ")
	why, out := leftOut[name]
	if !found || !out {
		return ""
	}
	return fmt.Sprintf("%s is left out unless it is allowed by name: %s", name, why)
}
