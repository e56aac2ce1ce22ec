package conventions

import (
	"encoding/json"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/cognito-extauthz/extauthz/"

type pkg struct {
	ImportPath string
	Dir        string
	Deps       []string
	GoFiles    []string
}

// packages lists ours, with all that they link, tests left out.
func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps=false", "-json=ImportPath,Dir,Deps,GoFiles", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, module)
		all = append(all, p)
	}
}

// mayLink says which of our packages each one may link, directly or through others. One that is not listed may link
// none. Data flows one way: from the programs down to the packages that know nothing of each other.
var mayLink = map[string][]string{
	"pkg/validator": {},
	"pkg/policy":    {"policies"},

	"pkg/validator/validatortest": {"pkg/validator"},

	"pkg/cognito":             {},
	"pkg/cognito/tokenfile":   {"pkg/cognito"},
	"pkg/cognito/cognitogrpc": {"pkg/cognito"},
	"pkg/cognito/login":       {"pkg/cognito", "pkg/validator"},
	"pkg/cognito/identity":    {"pkg/cognito"}, // only what is internal to it

	"internal/route":       {},
	"internal/config":      {"internal/route"},
	"internal/authz":       {"internal/asynclog", "internal/decisionlog", "internal/route", "pkg/policy", "pkg/validator", "policies"},
	"internal/decisionlog": {"internal/asynclog", "pkg/policy", "policies"},

	"internal/decisionlog/opalog": {"internal/asynclog", "internal/decisionlog", "pkg/policy", "policies"},

	"internal/asynclog":    {},
	"internal/reload":      {},
	"internal/opa":         {},
	"internal/server":      {"internal/unary"},
	"internal/unary":       {},
	"internal/telemetry":   {},
	"internal/certtest":    {},
	"internal/cognitotest": {},
	"internal/lab":         {"internal/cognitotest"},
	"internal/demo":        {"internal/cognitotest", "internal/lab"},
	"internal/bench":       {"internal/cognitotest", "internal/lab", "pkg/validator"},
	"cmd/extauthz": {
		"internal/asynclog", "internal/authz", "internal/config", "internal/decisionlog", "internal/decisionlog/opalog", "internal/opa", "internal/reload", "internal/route", "internal/server", "internal/telemetry", "internal/unary",
		"pkg/policy", "pkg/validator", "policies",
	},
	"cmd/fakecognito": {"internal/cognitotest"},
	"cmd/cognitoctl": {
		"internal/config", "internal/route", "pkg/cognito", "pkg/cognito/identity", "pkg/cognito/login", "pkg/cognito/tokenfile", "pkg/validator",
	},
}

// onlyIn says which of our packages may link what others have written, by the start of its path.
var onlyIn = map[string][]string{
	"github.com/lestrrat-go/jwx/v2":                 {"pkg/validator", "pkg/validator/validatortest", "internal/authz", "cmd/extauthz", "internal/bench", "pkg/cognito/login", "cmd/cognitoctl"},
	"github.com/maypok86/otter":                     {"pkg/validator", "pkg/validator/validatortest", "pkg/policy", "internal/authz", "internal/decisionlog", "internal/decisionlog/opalog", "cmd/extauthz", "internal/bench", "pkg/cognito/login", "cmd/cognitoctl"},
	"github.com/open-policy-agent/opa":              {"pkg/policy", "internal/authz", "internal/opa", "cmd/extauthz", "internal/decisionlog", "internal/decisionlog/opalog", "internal/bench/stockopa"},
	"github.com/envoyproxy/go-control-plane":        {"internal/authz", "internal/server", "cmd/extauthz", "internal/bench", "internal/bench/noop", "internal/bench/stockopa"},
	"google.golang.org/grpc":                        {"internal/authz", "internal/server", "internal/unary", "internal/telemetry", "cmd/extauthz", "pkg/policy", "internal/lab", "internal/demo", "internal/decisionlog", "internal/decisionlog/opalog", "internal/bench", "internal/bench/noop", "internal/bench/stockopa", "pkg/cognito/cognitogrpc"},
	"go.opentelemetry.io/otel":                      {"internal/authz", "internal/server", "internal/telemetry", "cmd/extauthz", "pkg/policy", "internal/opa", "internal/decisionlog", "internal/decisionlog/opalog"},
	"github.com/spf13/cobra":                        {"cmd/extauthz", "cmd/fakecognito", "cmd/cognitoctl"},
	"go.yaml.in/yaml":                               {"cmd/cognitoctl", "internal/config", "internal/lab", "internal/demo", "cmd/extauthz", "pkg/policy", "internal/authz", "internal/opa", "internal/decisionlog", "internal/decisionlog/opalog", "internal/bench", "internal/bench/stockopa"},
	"testing":                                       {"internal/certtest", "internal/lab", "internal/demo", "pkg/validator/validatortest", "internal/bench"},
	module + "internal/cognitotest":                 {"internal/lab", "internal/demo", "cmd/fakecognito", "internal/bench"},
	"github.com/aws/aws-sdk-go-v2":                  {"pkg/cognito/identity", "cmd/cognitoctl"},
	"github.com/cli/browser":                        {"pkg/cognito/login", "cmd/cognitoctl"},
	"github.com/gofrs/flock":                        {"pkg/cognito/internal/privatefile", "pkg/cognito/tokenfile", "pkg/cognito/login", "pkg/cognito/identity", "cmd/cognitoctl"},
	"golang.org/x/oauth2":                           {"pkg/cognito", "pkg/cognito/tokenfile", "pkg/cognito/cognitogrpc", "pkg/cognito/login", "cmd/cognitoctl"},
	"github.com/aws/smithy-go":                      {"pkg/cognito/identity", "cmd/cognitoctl"},
	"github.com/open-policy-agent/opa/v1/plugins":   {"internal/opa", "cmd/extauthz", "internal/decisionlog/opalog"},
	"github.com/open-policy-agent/opa/v1/server":    {"internal/opa", "cmd/extauthz", "internal/decisionlog/opalog"}, // linked by the plugins; none of it runs
	"github.com/open-policy-agent/opa/v1/sdk":       {},
	"github.com/open-policy-agent/opa/v1/download":  {"internal/opa", "cmd/extauthz", "internal/decisionlog/opalog"},
	"github.com/open-policy-agent/opa/v1/runtime":   {},
	"github.com/open-policy-agent/opa/v1/repl":      {},
	"github.com/open-policy-agent/opa/v1/debug":     {},
	"github.com/open-policy-agent/opa/v1/dashboard": {},
}

func TestDirectionOfImports(t *testing.T) {
	all := packages(t)
	for name := range mayLink {
		if !slices.ContainsFunc(all, func(p pkg) bool { return p.ImportPath == name }) {
			t.Errorf("package %s is listed here and does not exist", name)
		}
	}
	for _, p := range all {
		for _, dep := range p.Deps {
			if ours, ok := strings.CutPrefix(dep, module); ok && owner(ours) != owner(p.ImportPath) && !slices.Contains(mayLink[p.ImportPath], owner(ours)) {
				t.Errorf("%s links %s, want at most %v", p.ImportPath, ours, mayLink[p.ImportPath])
			}
			for prefix, users := range onlyIn {
				if (dep == prefix || strings.HasPrefix(dep, prefix+"/")) && !slices.Contains(users, p.ImportPath) {
					t.Errorf("%s links %s, want it only in %v", p.ImportPath, dep, users)
				}
			}
		}
	}
}

// owner returns the package that a package below its internal folder is a part of.
func owner(path string) string {
	of, _, _ := strings.Cut(path, "/internal/")
	return of
}

// Every package has one package comment, in the file named after it or in main.go.
func TestPackageComments(t *testing.T) {
	for _, p := range packages(t) {
		var with []string
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if file.Doc != nil {
				with = append(with, name)
			}
		}
		want := filepath.Base(p.Dir) + ".go"
		if len(with) != 1 || with[0] != want && with[0] != "main.go" && with[0] != "doc.go" {
			t.Errorf("%s has package comments in %v, want one, in %s or main.go", p.ImportPath, with, want)
		}
	}
}
