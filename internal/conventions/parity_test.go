package conventions

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// theirs are the names that docs/compare.md has a row for: all that the Python packages and the module offer, with their
// parameters, attributes and errors, and what their documentation says of them.
var theirs = map[string][]string{
	"callers: m2m-cognito": {
		"CognitoM2MClient", "token_url", "client_id", "client_secret", "fetch_token", "scopes", "timeout",
		"TokenResponse.access_token", "TokenResponse.expires_in", "TokenResponse.token_type", "TokenResponse.raw",
		"M2MCognitoError", "CognitoTokenRequestError", "status_code", "error_code", "error_description", "response_body",
		"CognitoAccessTokenValidator", "ValidatedAccessToken", "TokenValidationError", "InsufficientScopeError",
	},
	"callers: people": {
		"JwtPayload", "AWSCredentials", "CognitoCredentialsManager", "identity_pool_id", "user_pool_id", `region="us-east-1"`, "auth_tokens",
		"authenticator", "ensure_credentials(role_suffix, refresh_margin)", "get_credentials(id_token, role_suffix)", "role_suffix",
		"role_suffix=None", "PermissionError", "make_refreshing_session", "make_session", "refresh_user_pool_tokens",
		"CognitoOAuthAuthenticator", "cognito_domain", "client_id", `redirect_uri="http://localhost:3000"`, "authenticate",
		"exchange_code_for_tokens(authorization_code, code_verifier)", "generate_pkce_pair", "get_authorization_url(code_challenge, state)",
		"state", "refresh_tokens(refresh_token)", "start_local_server(port=3000)", "ConnectionError", "CognitoTokenRefreshResponse",
		"CognitoTokens", "IdentityPoolCredentials", "IdentityPoolCredentialsResponse", "OAuthCallbackHandler", "OAuthCallbackServer",
		"RefreshableCredentialMetadata", "decode_jwt_payload", "get_authenticated_cognito_manager(cogconf)", "CognitoConfiguration",
	},
	"callers: article":         {"is_valid_token(scope)", "get_well_known_jwk", "CLIENT_ID"},
	"TestParityWithM2MCognito": {"region", "user_pool_id", "allowed_client_ids", "required_scopes", `scope_match="any"`, "audience"},
	"TestParityWithCognitojwt": {"region", "userpool_id", "app_client_id=None", "testmode=True", "decode", "decode_async", "AWS_COGNITO_JWKS_PATH"},
}

// notOurs are names in the column of ours that other packages have.
var notOurs = []string{
	"errors.As", "*oauth2.RetrieveError", "aws.Config", "aws.Credentials", "client_secret_basic", "cognito:preferred_role", "fakecognito",
}

// tables are those of docs/compare.md between a comment with their name and the comment "end".
var tables = regexp.MustCompile(`(?s)<!-- ([\w: -]+) -->\n(.*?)<!-- end -->`)

// Every name of a Python package or module has a row, and what a row says of ours is there: each Go name, each command and
// flag of cognitoctl, and each test.
func TestParityTables(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "docs", "compare.md"))
	if err != nil {
		t.Fatal(err)
	}
	declared := newDeclarations(t)
	found := make(map[string]bool)
	for _, m := range tables.FindAllStringSubmatch(string(text), -1) {
		name, rows := m[1], rowsOf(t, m[2])
		found[name] = true
		var all []string
		for _, cells := range rows {
			all = append(all, spans(cells[0])...)
			for _, span := range spans(cells[2]) {
				if strings.HasPrefix(name, "callers") {
					declared.check(t, span)
				} else {
					declared.checkValidator(t, span)
				}
			}
			testsExist(t, cells)
		}
		for _, want := range theirs[name] {
			if !slices.Contains(all, want) {
				t.Errorf("the table %q has no row for `%s`", name, want)
			}
		}
	}
	for name := range theirs {
		if !found[name] {
			t.Errorf("docs/compare.md has no table %q", name)
		}
	}
}

// rowsOf returns the cells of the rows below a table's head.
func rowsOf(t *testing.T, table string) (rows [][]string) {
	t.Helper()
	for i, line := range strings.Split(strings.TrimSpace(table), "\n") {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) != 4 {
			t.Fatalf("a row has %d cells, want 4: %s", len(cells), line)
		}
		if i >= 2 {
			rows = append(rows, cells)
		}
	}
	if len(rows) == 0 {
		t.Fatalf("a table has no rows: %s", table)
	}
	return rows
}

var code = regexp.MustCompile("`([^`]+)`")

// spans returns what stands between backticks.
func spans(cell string) (all []string) {
	for _, m := range code.FindAllStringSubmatch(cell, -1) {
		all = append(all, m[1])
	}
	return all
}

var testLink = regexp.MustCompile(`\[([^]]+)\]\(\.\./([^)]+)\)`)

// testsExist holds that a row names tests that are there. Those in a file of cases are held by the test of that file.
func testsExist(t *testing.T, cells []string) {
	t.Helper()
	links := testLink.FindAllStringSubmatch(cells[3], -1)
	if len(links) == 0 {
		t.Errorf("the row of %s names no test", cells[0])
	}
	for _, m := range links {
		text, err := os.ReadFile(filepath.Join(root(t), m[2]))
		if err != nil {
			t.Error(err)
		}
		isFunction := regexp.MustCompile(`^(Test|Fuzz|Example)\w*$`).MatchString(m[1])
		if isFunction && !strings.Contains(string(text), "\nfunc "+m[1]+"(") {
			t.Errorf("the row of %s: %s is not in %s", cells[0], m[1], m[2])
		}
		if strings.HasSuffix(m[2], ".txtar") && m[1] != filepath.Base(m[2]) {
			t.Errorf("the row of %s: a link says %s and leads to %s", cells[0], m[1], m[2])
		}
	}
}

// declarations are the exported names of our packages: of each type, its fields and methods too.
type declarations struct {
	names   map[string]map[string]bool // by package; "Type.Member" for members
	program string                     // cognitoctl
	help    map[string]string          // what it says of a command
}

var callersPackages = map[string]string{
	"validator": "pkg/validator", "validatortest": "pkg/validator/validatortest", "cognito": "pkg/cognito", "tokenfile": "pkg/cognito/tokenfile",
	"cognitogrpc": "pkg/cognito/cognitogrpc", "login": "pkg/cognito/login", "identity": "pkg/cognito/identity",
}

func newDeclarations(t *testing.T) *declarations {
	t.Helper()
	d := &declarations{names: make(map[string]map[string]bool), help: make(map[string]string)}
	for name, dir := range callersPackages {
		d.names[name] = exported(t, filepath.Join(root(t), dir))
	}
	d.program = filepath.Join(build(t, "./cmd/cognitoctl"), "cognitoctl")
	return d
}

func exported(t *testing.T, dir string) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				names[receiver(decl)+decl.Name.Name] = true
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					addSpec(names, spec)
				}
			}
		}
	}
	if len(names) == 0 {
		t.Fatalf("%s declares nothing", dir)
	}
	return names
}

// receiver returns "Type." for a method.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	expr := f.Recv.List[0].Type
	if star, ok := expr.(*ast.StarExpr); ok {
		expr = star.X
	}
	if ident, ok := expr.(*ast.Ident); ok {
		return ident.Name + "."
	}
	return "?."
}

func addSpec(names map[string]bool, spec ast.Spec) {
	switch spec := spec.(type) {
	case *ast.ValueSpec:
		for _, n := range spec.Names {
			names[n.Name] = true
		}
	case *ast.TypeSpec:
		names[spec.Name.Name] = true
		var members *ast.FieldList
		switch body := spec.Type.(type) {
		case *ast.StructType:
			members = body.Fields
		case *ast.InterfaceType:
			members = body.Methods
		default:
			return
		}
		for _, f := range members.List {
			for _, n := range f.Names {
				names[spec.Name.Name+"."+n.Name] = true
			}
		}
	}
}

// check holds that a name, or a command, of a table about callers is there.
func (d *declarations) check(t *testing.T, span string) {
	t.Helper()
	pkg, name, _ := strings.Cut(span, ".")
	switch {
	case strings.HasPrefix(span, "cognitoctl "):
		d.checkCommand(t, span)
	case d.names[pkg] != nil:
		if !d.names[pkg][name] || !ast.IsExported(name) {
			t.Errorf("docs/compare.md names %s, which is not there", span)
		}
	case !slices.Contains(notOurs, span):
		t.Errorf("docs/compare.md names `%s` as ours, want PACKAGE.NAME, cognitoctl COMMAND, or one of %v", span, notOurs)
	}
}

// checkCommand holds that cognitoctl has a command and its flags.
func (d *declarations) checkCommand(t *testing.T, span string) {
	t.Helper()
	words := strings.Fields(span)
	help, ok := d.help[words[1]]
	if !ok {
		out, err := exec.CommandContext(t.Context(), d.program, words[1], "--help").CombinedOutput()
		if err != nil {
			t.Errorf("docs/compare.md names %s: %v\n%s", span, err, out)
		}
		help = string(out)
		d.help[words[1]] = help
	}
	if !strings.Contains(help, "cognitoctl "+words[1]) {
		t.Errorf("docs/compare.md names %s, and cognitoctl has no such command", span)
	}
	for _, flag := range words[2:] {
		if !regexp.MustCompile(`(?m)^ +(-\w, )?` + flag + `( |$)`).MatchString(help) {
			t.Errorf("docs/compare.md names %s, and the command has no such flag", span)
		}
	}
}

var goName = regexp.MustCompile(`^[A-Z]\w*(\.[A-Z]\w*)?$`)

// checkValidator holds that a Go name of a table about pkg/validator is there. What begins otherwise is a key of the
// configuration, or code, which other tests hold.
func (d *declarations) checkValidator(t *testing.T, span string) {
	t.Helper()
	pkg, name, _ := strings.Cut(span, ".")
	if names := d.names[pkg]; names != nil && goName.MatchString(name) {
		if !names[name] {
			t.Errorf("docs/compare.md names %s, which is not there", span)
		}
		return
	}
	if !goName.MatchString(span) || d.names["validator"][span] {
		return
	}
	for declared := range d.names["validator"] {
		if _, member, ok := strings.Cut(declared, "."); ok && member == span {
			return
		}
	}
	t.Errorf("docs/compare.md names %s, which pkg/validator does not have", span)
}
