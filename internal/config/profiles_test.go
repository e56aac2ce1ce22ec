package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.yaml.in/yaml/v3"
)

const goodProfiles = `default: orders
profiles:
  orders:
    domain: my-team
    userPoolId: eu-west-1_AbCdEfGhI
    clientId: 7a8b9c0d1e2f3g4h5i6j7k8
    clientSecretFile: [orders.secret]
    scopes: [orders/read]
  me:
    tokenUrl: http://127.0.0.1:9199/oauth2/token
    issuer: http://127.0.0.1:9199/eu-west-1_Demo12345
    clientId: 3web0demo0public0client000
  nameless: {clientSecretEnv: [X]}
`

func parseGoodProfiles(tb testing.TB) *ProfileFile {
	tb.Helper()
	f, err := ParseProfiles("dir/c.yaml", []byte(goodProfiles))
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

func TestProfiles(t *testing.T) {
	f := parseGoodProfiles(t)
	if diff := cmp.Diff([]string{"me", "nameless", "orders"}, f.Names()); diff != "" {
		t.Errorf("names (-want +got)\n%s", diff)
	}
	name, p, err := f.Profile("", "")
	if err != nil {
		t.Fatal(err)
	}
	want := NoProfile()
	want.Domain, want.UserPoolID, want.Region = "my-team", "eu-west-1_AbCdEfGhI", "eu-west-1"
	want.ClientID, want.ClientSecretFile, want.Scopes = "7a8b9c0d1e2f3g4h5i6j7k8", []string{"dir/orders.secret"}, []string{"orders/read"}
	if diff := cmp.Diff(want, p, cmpopts.IgnoreUnexported(Profile{})); diff != "" || name != "orders" {
		t.Errorf("the default profile is %s (-want +got)\n%s", name, diff)
	}
	if got := p.Source("clientId"); got != "dir/c.yaml:6" || p.Source("timeout") != "" || p.Given("timeout") || !p.Given("domain") {
		t.Errorf("clientId is from %q, timeout from %q", got, p.Source("timeout"))
	}
}

func TestProfileThatIsNotThere(t *testing.T) {
	for _, test := range []struct{ name, text, profile, source, want string }{
		{"misspelt", goodProfiles, "ordrs", "--profile", "--profile: found \"ordrs\", which is no profile of c.yaml\n  hint: did you mean orders?"},
		{"another", goodProfiles, "x", "COGNITOCTL_PROFILE", "COGNITOCTL_PROFILE: found \"x\", which is no profile of c.yaml\n  hint: there is me, nameless, orders"},
		{
			"none of two named", strings.Replace(goodProfiles, "default: orders\n", "", 1), "", "",
			"c.yaml:1:1: default: missing, want it where there are several profiles and none is named\n  hint: name one with --profile: there is me, nameless, orders",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := ParseProfiles("c.yaml", []byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			_, p, err := f.Profile(test.profile, test.source)
			if p != nil || err == nil || err.Error() != test.want {
				t.Errorf("found %v and\n%v\nwant\n%s", p, err, test.want)
			}
		})
	}
}

// TestProfileMistakes makes one mistake at a time, as TestMistakes does for the service's file.
func TestProfileMistakes(t *testing.T) {
	// The secret that must not be shown, whatever it was taken for.
	const canary = "1canary2canary3canary4canary5canary6canary7canary"
	tests := []struct{ name, old, new, want string }{
		{
			"an unknown key", "    clientId: 7a", "    clientID: 7a",
			"c.yaml:6:5: profiles.orders.clientID: unknown key\n  hint: did you mean clientId?",
		},
		{
			"a key of a profile at the top", "default: orders", "clientId: x",
			"c.yaml:1:1: clientId: unknown key, want one of default, profiles\n  hint: it belongs to profiles.NAME; check the indentation",
		},
		{
			"a secret in the file", "clientSecretFile: [orders.secret]", "clientSecret: " + canary,
			"c.yaml:7:5: profiles.orders.clientSecret: unknown key, want one of …\n  hint: a secret does not stand in this file: name where it is in clientSecretFile, clientSecretEnv or clientSecretCommand",
		},
		{
			"a secret for the name of a variable", "clientSecretFile: [orders.secret]", "clientSecretEnv: [" + canary + "]",
			"c.yaml:7:23: profiles.orders.clientSecretEnv[0]: found a value that is not valid (it is a secret and not shown), want the name of an environment variable, in upper case, such as ORDERS_CLIENT_SECRET",
		},
		{
			"a secret for a list of files", "clientSecretFile: [orders.secret]", "clientSecretFile: " + canary,
			"c.yaml:7:23: profiles.orders.clientSecretFile: found a value that is not valid (it is a secret and not shown), want a list of paths\n  hint: write it in brackets: [FILE]",
		},
		{
			"a variable that is no list", "clientSecretFile: [orders.secret]", "clientSecretEnv: ORDERS_SECRET",
			"c.yaml:7:22: profiles.orders.clientSecretEnv: found a value that is not valid (it is a secret and not shown), want a list of variables\n  hint: write it in brackets: [NAME]",
		},
		{
			"a secret in a line that is no YAML", "clientSecretFile: [orders.secret]", "clientSecret: a: " + canary,
			"c.yaml:7:5: found what is no YAML (it may hold a secret and is not shown)\n  hint: a secret does not stand in this file: name where it is in clientSecretFile, clientSecretEnv or clientSecretCommand",
		},
		{
			"two kinds of secret", "clientSecretFile: [orders.secret]", "clientSecretFile: [orders.secret]\n    clientSecretCommand: pass orders",
			"c.yaml:8:26: profiles.orders.clientSecretCommand: found it beside clientSecretFile, want one of the two\n  hint: delete the one that you do not mean",
		},
		{
			"three secrets", "[orders.secret]", "[a, b, c]",
			"c.yaml:7:5: profiles.orders.clientSecretFile: found 3, want one, or two during a rotation",
		},
		{
			"a default that is not there", "default: orders", "default: order",
			"c.yaml:1:10: default: found \"order\", want a name defined in profiles\n  hint: did you mean orders?",
		},
		{
			"the file of a secret", "everything", canary + "\n",
			"c.yaml:1:1: found text (it may be a secret and is not shown), want a section with any of the keys default, profiles\n  hint: is this the right file?",
		},
		{"no profile", "everything", "profiles: {}", "c.yaml:1:11: profiles: found an empty mapping, want at least one profile, under a name\n  hint: …"},
		{
			"nothing", "everything", "",
			"c.yaml:1:1: found nothing in the file, want at least profiles\n  hint: docs/callers.md has one to begin with",
		},
		{
			"a Region that is not the pool's", "    domain: my-team", "    domain: my-team\n    region: eu-central-1",
			"c.yaml:5:13: profiles.orders.region: found eu-central-1 with userPoolId eu-west-1_AbCdEfGhI, want the Region that the id begins with\n  hint: write eu-west-1; for a replica of a multi-Region pool, use issuer instead of userPoolId",
		},
		{
			"a prefix without Region", "    userPoolId: eu-west-1_AbCdEfGhI\n", "",
			"c.yaml:4:13: profiles.orders.domain: found the prefix \"my-team\" without region, want the Region of the pool beside it\n  hint: say region, or userPoolId, which begins with it; a domain of your own is written in full, such as auth.example.com",
		},
		{
			"a domain with a scheme", "domain: my-team", "domain: https://auth.example.com",
			"c.yaml:4:13: profiles.orders.domain: found \"https://auth.example.com\", want a domain prefix such as my-team, or a domain such as auth.example.com\n  hint: write auth.example.com",
		},
		{
			"plain http", "http://127.0.0.1:9199/oauth2/token", "http://auth.example.com/oauth2/token",
			"c.yaml:10:15: profiles.me.tokenUrl: found \"http://auth.example.com/oauth2/token\", want https; http only for localhost, 127.0.0.1 and [::1]\n  hint: write https://auth.example.com/oauth2/token",
		},
		{
			"a token endpoint without its path", "http://127.0.0.1:9199/oauth2/token", "http://127.0.0.1:9199",
			"c.yaml:10:15: profiles.me.tokenUrl: found \"http://127.0.0.1:9199\" without a path, want the whole address of the token endpoint\n  hint: write http://127.0.0.1:9199/oauth2/token",
		},
		{
			"two names for a pool", "    issuer: http", "    userPoolId: eu-west-1_AbCdEfGhI\n    issuer: http",
			"c.yaml:12:13: profiles.me.issuer: found it beside userPoolId, want one of the two\n  hint: delete the one that you do not mean",
		},
		{
			"a pool of another partition", "userPoolId: eu-west-1_AbCdEfGhI", "userPoolId: cn-north-1_AbCdEfGhI",
			"c.yaml:5:17: profiles.orders.userPoolId: found cn-north-1_AbCdEfGhI, whose AWS partition has issuers of its own; want issuer instead\n  hint: take the iss of one of the pool's tokens",
		},
		{
			"a pool without Region", "userPoolId: eu-west-1_AbCdEfGhI", "userPoolId: local_AbCdEfGhI",
			"c.yaml:5:17: profiles.orders.userPoolId: found local_AbCdEfGhI, want an id that begins with a Region, such as eu-west-1_AbCdEfGhI\n  hint: for a stand-in of Cognito, use issuer instead",
		},
		{
			"a redirect to elsewhere", "    issuer: http", "    redirectUrl: https://app.example.com/cb\n    issuer: http",
			"c.yaml:11:18: profiles.me.redirectUrl: found \"https://app.example.com/cb\", want http and this machine, such as http://localhost:3000\n  hint: it is one of the callback URLs of the app client",
		},
		{
			"a duration without unit", "    scopes: [orders/read]", "    timeout: 10",
			"c.yaml:8:14: profiles.orders.timeout: found the number 10, want a duration from 100ms to 5m, such as 10s\n  hint: write 10s",
		},
		{
			"an audience for ID tokens", "    scopes: [orders/read]", "    tokenUse: [id]\n    audience: [x]",
			"c.yaml:9:5: profiles.orders.audience: found a list with tokenUse [id], want it only with access tokens, as the aud of an ID token is its client\n  hint: list the allowed clients in clients",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			text := strings.Replace(goodProfiles, test.old, test.new, 1)
			if test.old == "everything" {
				text = test.new
			} else if text == goodProfiles {
				t.Fatalf("the good file has no %q", test.old)
			}
			_, err := ParseProfiles("c.yaml", []byte(text))
			if err == nil {
				t.Fatal("accepted")
			}
			if !matchesEllipsis(test.want, err.Error()) {
				t.Errorf("found\n%v\nwant\n%s", err, test.want)
			}
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("the secret is shown: %v", err)
			}
		})
	}
}

// matchesEllipsis tells whether got is want, in which … stands for any text.
func matchesEllipsis(want, got string) bool {
	pieces := strings.Split(want, "…")
	for i, piece := range pieces {
		at := strings.Index(got, piece)
		if at < 0 || i == 0 && at > 0 {
			return false
		}
		got = got[at+len(piece):]
	}
	return got == "" || strings.HasSuffix(want, "…")
}

// What is said elsewhere counts more than the file, and takes out what belongs to what it replaces.
func TestProfileWith(t *testing.T) {
	flag := func(key string, values ...string) Setting {
		return Setting{Key: key, Source: "--" + key, Values: values}
	}
	tests := []struct {
		name    string
		profile string
		layers  [][]Setting
		edit    func(*Profile) // from the profile
	}{
		{"nothing", "orders", nil, func(*Profile) {}},
		{"a scalar", "orders", [][]Setting{{flag("timeout", "3s")}}, func(p *Profile) { p.Timeout = 3 * time.Second }},
		{"a list, which replaces the whole list", "orders", [][]Setting{{flag("scopes", "a/b", "c/d")}}, func(p *Profile) { p.Scopes = []string{"a/b", "c/d"} }},
		{"a mapping", "orders", [][]Setting{{flag("clientMetadata", "a=b", "c=d=e")}}, func(p *Profile) { p.ClientMetadata = map[string]string{"a": "b", "c": "d=e"} }},
		{"a switch", "orders", [][]Setting{{flag("anyClient", "true")}}, func(p *Profile) { p.AnyClient = true }},
		{"the later layer", "orders", [][]Setting{{flag("domain", "auth.example.com")}, {flag("domain", "login.example.com")}}, func(p *Profile) { p.Domain = "login.example.com" }},
		{"the last of a repeated scalar", "orders", [][]Setting{{flag("authStyle", "basic", "post")}}, func(p *Profile) { p.AuthStyle = "post" }},
		{"a file for a variable", "orders", [][]Setting{{flag("clientSecretEnv", "X")}}, func(p *Profile) {
			p.ClientSecretFile, p.ClientSecretEnv = nil, []string{"X"}
		}},
		{"another client, which does not get the file's secret", "orders", [][]Setting{{flag("clientId", "other")}}, func(p *Profile) {
			p.ClientID, p.ClientSecretFile = "other", nil
		}},
		{"the same client, which keeps it", "orders", [][]Setting{{flag("clientId", "7a8b9c0d1e2f3g4h5i6j7k8")}}, func(*Profile) {}},
		{"another client, with a secret of an earlier layer", "orders", [][]Setting{{flag("clientSecretEnv", "X")}, {flag("clientId", "other")}}, func(p *Profile) {
			p.ClientID, p.ClientSecretFile, p.ClientSecretEnv = "other", nil, []string{"X"}
		}},
		{"a client where the file names none, which gets the file's secret", "nameless", [][]Setting{{flag("clientId", "x")}}, func(p *Profile) { p.ClientID = "x" }},
		{"another domain, to which the token endpoint does not belong", "me", [][]Setting{{flag("domain", "auth.example.com")}}, func(p *Profile) {
			p.Domain, p.TokenURL = "auth.example.com", ""
		}},
		{"a pool for an issuer", "me", [][]Setting{{flag("userPoolId", "us-east-1_X")}}, func(p *Profile) {
			p.UserPoolID, p.Issuer, p.Region = "us-east-1_X", "", "us-east-1"
		}},
		{"a pool of another Region", "orders", [][]Setting{{flag("userPoolId", "us-east-1_X")}}, func(p *Profile) {
			p.UserPoolID, p.Region = "us-east-1_X", "us-east-1"
		}},
		{"an issuer without the keys of another", "orders", [][]Setting{{flag("jwksFile", "k.json")}, {flag("issuer", "https://issuer.example")}}, func(p *Profile) {
			p.UserPoolID, p.Issuer = "", "https://issuer.example"
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, p, err := parseGoodProfiles(t).Profile(test.profile, "")
			if err != nil {
				t.Fatal(err)
			}
			before := *p
			got, err := p.With(test.layers...)
			if err != nil {
				t.Fatal(err)
			}
			want := before
			test.edit(&want)
			if diff := cmp.Diff(&want, got, cmpopts.IgnoreUnexported(Profile{})); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(&before, p, cmpopts.IgnoreUnexported(Profile{})); diff != "" {
				t.Errorf("With has changed the profile (-before +after)\n%s", diff)
			}
		})
	}
}

func TestProfileWithMistakes(t *testing.T) {
	for _, test := range []struct {
		name     string
		settings []Setting
		want     string
	}{
		{"a word that is none of several", []Setting{{"authStyle", "--auth-style", []string{"bsic"}}}, "--auth-style: found \"bsic\", want basic or post\n  hint: did you mean basic?"},
		{"a scope with a quote", []Setting{{"scopes", "COGNITOCTL_SCOPES", []string{`a"b`}}}, "COGNITOCTL_SCOPES: found …"},
		{"a scope twice", []Setting{{"scopes", "--scope", []string{"a/b", "a/b"}}}, "--scope: found \"a/b\" a second time, want it once"},
		{"two kinds of secret", []Setting{{"clientSecretFile", "--client-secret-file", []string{"x"}}, {"clientSecretEnv", "--client-secret-env", []string{"X"}}}, "--client-secret-env: found it beside clientSecretFile, want one of the two…"},
		{"a secret for the name of a variable", []Setting{{"clientSecretEnv", "--client-secret-env", []string{"1canary2"}}}, "--client-secret-env: found a value that is not valid (it is a secret and not shown), want…"},
		{"metadata without a value", []Setting{{"clientMetadata", "--client-metadata", []string{"tenant"}}}, "--client-metadata: found a member that is no NAME=VALUE, want it so, such as tenant=acme"},
		{"a duration too long", []Setting{{"timeout", "--timeout", []string{"1h"}}}, "--timeout: found 1h, want a duration from 100ms to 5m, such as 10s"},
		{"a domain without Region", []Setting{{"domain", "--domain", []string{"my-team"}}}, "--domain: found the prefix \"my-team\" without region, want…"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := NoProfile().With(test.settings)
			if err == nil || p != nil || !matchesEllipsis(test.want, err.Error()) {
				t.Errorf("found %v and\n%v\nwant\n%s", p, err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("the secret is shown: %v", err)
			}
		})
	}
}

// What config show prints says where each value is from, and is itself a profile.
func TestProfileYAML(t *testing.T) {
	_, p, err := parseGoodProfiles(t).Profile("orders", "")
	if err != nil {
		t.Fatal(err)
	}
	if p, err = p.With([]Setting{{"clientSecretEnv", "--client-secret-env", []string{"ORDERS_SECRET"}}}); err != nil {
		t.Fatal(err)
	}
	text := string(p.YAML())
	for _, want := range []string{"domain: my-team # from dir/c.yaml:4\n", "clientSecretEnv: [ORDERS_SECRET] # from --client-secret-env\n", "timeout: 10s\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("found no %q in\n%s", want, text)
		}
	}
	again, err := ParseProfiles("x.yaml", []byte("profiles:\n  x:\n    "+strings.ReplaceAll(text, "\n", "\n    ")))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	_, q, _ := again.Profile("x", "")
	if diff := cmp.Diff(p, q, cmpopts.IgnoreUnexported(Profile{})); diff != "" {
		t.Errorf("it means something else (-shown +read)\n%s", diff)
	}
}

// What ParseProfiles accepts, an editor with the schema does, and a misspelt key shows there too.
func TestProfileSchema(t *testing.T) {
	if problem := profileSchemaProblem(t, goodProfiles); problem != "" {
		t.Errorf("the schema refuses the good file: %s", problem)
	}
	if profileSchemaProblem(t, strings.Replace(goodProfiles, "clientId", "clientID", 1)) == "" {
		t.Error("the schema accepts an unknown key")
	}
}

var parsedProfileSchema = sync.OnceValue(func() (s map[string]any) {
	if err := json.Unmarshal(ProfileSchema(), &s); err != nil {
		panic(err)
	}
	return s
})

func profileSchemaProblem(tb testing.TB, text string) string {
	tb.Helper()
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		return "no YAML: " + err.Error()
	}
	return validate(tb, parsedProfileSchema(), value, "")
}

// FuzzParseProfiles holds that ParseProfiles never panics, that its problems point into the file, and that what it accepts
// has a profile that can be shown and read again.
func FuzzParseProfiles(f *testing.F) {
	for _, text := range []string{goodProfiles, "profiles: {x: {clientSecret: y}}", "profiles:\n  x: {}\n", "default: \"\"", "\ufeff", "a: b: c"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := ParseProfiles("f.yaml", data)
		if err == nil {
			if problem := profileSchemaProblem(t, string(data)); problem != "" {
				t.Errorf("the schema refuses it: %s", problem)
			}
			for _, name := range file.Names() {
				_, p, err := file.Profile(name, "--profile")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := p.With(); err != nil {
					t.Errorf("a profile that was accepted is refused: %v", err)
				}
				p.YAML()
			}
			return
		}
		var e *Error
		if !errors.As(err, &e) || len(e.Problems) == 0 || file != nil {
			t.Fatalf("found %v and %T, want problems", file, err)
		}
		lines := bytes.Split(bytes.TrimPrefix(data, []byte("\ufeff")), []byte("\n"))
		for _, p := range e.Problems {
			if p.Message == "" || p.Line < 1 || p.Line > len(lines) || p.Column < 1 || p.Column > utf8.RuneCount(lines[p.Line-1])+1 {
				t.Errorf("%v: line or column is not in the file", p)
			}
		}
	})
}

func TestSecretFileProblem(t *testing.T) {
	p := NoProfile()
	cause := errors.New("no such file or directory")
	for name, want := range map[string]string{
		"orders.secret": `clientSecretFile: "orders.secret": no such file or directory`,
		"1canary2canary3canary4canary5canary6canary7canary": "clientSecretFile: the file cannot be opened (its name looks like a secret and is not shown): no such file or directory",
	} {
		if got := fmt.Sprint(p.SecretFileProblem(name, cause)); got != want {
			t.Errorf("%s: found %s, want %s", name, got, want)
		}
	}
}
