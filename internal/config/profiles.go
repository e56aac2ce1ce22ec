package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A ProfileFile is the configuration of cognitoctl: how a caller gets tokens, under a name for each app client.
type ProfileFile struct {
	// The profile that counts where none is named. Default: the only one there is.
	Default string `yaml:"default" format:"name"`
	// How tokens are had from an app client, each under a name of your choice.
	Profiles map[string]Profile `yaml:"profiles" keys:"name" required:"true" min:"1" example:"orders: {domain: my-team, region: eu-west-1, clientId: 7a8b9c0d1e2f3g4h5i6j7k8, clientSecretFile: [secret]}"`

	file   string
	places map[string]place // of every key that was given, by full key
}

// A Profile says what cognitoctl has to know of an app client and its user pool. Every key can also be a flag and an
// environment variable, so none is required here.
type Profile struct {
	// The pool's AWS Region, such as `eu-west-1`. Default: that which `userPoolId` begins with.
	Region string `yaml:"region" format:"region"`
	// The user pool's id, such as `eu-west-1_AbCdEfGhI`. It is needed where a token is verified.
	UserPoolID string `yaml:"userPoolId" format:"userPoolID"`
	// The exact `iss` of the pool's tokens, instead of `userPoolId`: for other AWS partitions, replicas in a second Region
	// and stand-ins. https, or http on a loopback host.
	Issuer string `yaml:"issuer" format:"url"`
	// Where the pool's public keys (JWK Set) are fetched. Default: `/.well-known/jwks.json` under the issuer. https, or http
	// on a loopback host.
	JWKSURL string `yaml:"jwksUrl" format:"url"`
	// A JWK Set in a file, instead of fetching one.
	JWKSFile string `yaml:"jwksFile" format:"path"`
	// The domain of the pool's endpoints: the prefix of Cognito's own domain, such as `my-team`, which needs `region`; or
	// your own domain, such as `auth.example.com`.
	Domain string `yaml:"domain" format:"domain"`
	// The token endpoint. Default: `/oauth2/token` at the domain. https, or http on a loopback host.
	TokenURL string `yaml:"tokenUrl" format:"url"`
	// The authorization endpoint, for login. Default: `/oauth2/authorize` at the domain.
	AuthorizeURL string `yaml:"authorizeUrl" format:"url"`
	// The revocation endpoint, for logout. Default: `/oauth2/revoke` at the domain.
	RevokeURL string `yaml:"revokeUrl" format:"url"`
	// The endpoint that ends the browser's own session, for logout --browser. Default: `/logout` at the domain.
	LogoutURL string `yaml:"logoutUrl" format:"url"`
	// Where the browser goes after logout --browser: one of the app client's sign-out URLs. Default: `redirectUrl`.
	SignOutURL string `yaml:"signOutUrl" format:"url"`
	// The app client's id, as Cognito shows it. It is an identifier and no secret.
	ClientID string `yaml:"clientId" format:"clientID"`
	// Files with the app client's secret, one in each: the current one first, then the one that replaces it while both are
	// valid. Line ends at the end do not count. A relative path is relative to the configuration file.
	ClientSecretFile []string `yaml:"clientSecretFile" format:"path" secret:"unless valid"`
	// Environment variables that hold the app client's secret, instead of files: one, or two during a rotation.
	ClientSecretEnv []string `yaml:"clientSecretEnv" format:"variable" secret:"unless valid"`
	// A command whose standard output is the app client's secret, instead of files: one on each line, at most two. The shell
	// runs it (`sh -c`), and only if a token has to be fetched.
	ClientSecretCommand string `yaml:"clientSecretCommand" format:"text"`
	// How the app client authenticates at the token endpoint: `basic` (client_secret_basic) or `post` (client_secret_post).
	// Cognito takes both.
	AuthStyle string `yaml:"authStyle" default:"basic" enum:"basic|post"`
	// The scopes to ask for, in full: `resource-server-identifier/scope-name`. Default: all that the app client may have; for
	// a login `openid`.
	Scopes []string `yaml:"scopes" format:"scope"`
	// Metadata for the pool's pre token generation trigger (`aws_client_metadata`), sent with each request for a machine's token.
	ClientMetadata map[string]string `yaml:"clientMetadata" keys:"metadata" format:"text" example:"tenant: acme"`
	// The time for one request.
	Timeout time.Duration `yaml:"timeout" default:"10s" min:"100ms" max:"5m"`
	// Certificate authorities (PEM) for https, instead of the system's: for stand-ins and TLS-inspecting proxies.
	CAFile string `yaml:"caFile" format:"path"`
	// Where the browser comes back to after a login, as the app client has it registered. Port 0 takes a free one.
	RedirectURL string `yaml:"redirectUrl" default:"http://localhost:3000" format:"url"`
	// The time that a person has for a login in the browser.
	LoginTimeout time.Duration `yaml:"loginTimeout" default:"5m" min:"1s" max:"1h"`
	// The identity pool that gives AWS credentials for a login.
	IdentityPoolID string `yaml:"identityPoolId" format:"identityPoolID"`
	// The role to take of those that the login may have, in full.
	RoleARN string `yaml:"roleArn" format:"roleARN"`
	// The role to take of those that the login may have, by how its ARN ends. Exactly one must end so.
	RoleSuffix string `yaml:"roleSuffix" format:"text"`
	// The name under which the identity pool knows the user pool, such as
	// `cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI`. Default: that of `userPoolId`.
	LoginProvider string `yaml:"loginProvider" format:"text"`
	// The endpoint of Amazon Cognito Federated Identities, for stand-ins. Default: that of the Region.
	IdentityEndpoint string `yaml:"identityEndpoint" format:"url"`
	// The app clients whose tokens `verify` accepts. Default: `clientId`.
	Clients []string `yaml:"clients" format:"clientID"`
	// `true` has `verify` accept the tokens of every app client of the pool.
	AnyClient bool `yaml:"anyClient"`
	// If set, `verify` wants one of these values in the `aud` of an access token.
	Audience []string `yaml:"audience" format:"audience"`
	// Scopes that `verify` wants in a token.
	RequiredScopes []string `yaml:"requiredScopes" format:"scope"`
	// Whether `verify` wants `all` of `requiredScopes` or `any` one of them.
	ScopeMatch string `yaml:"scopeMatch" default:"all" enum:"all|any"`
	// The kinds of token that `verify` accepts.
	TokenUse []string `yaml:"tokenUse" default:"access" enum:"access|id" min:"1"`
	// `true` has `verify` refuse tokens that were issued for a person.
	MachinesOnly bool `yaml:"machinesOnly" default:"false"`
	// Clock skew that `verify` forgives where a token looks not yet valid.
	Leeway time.Duration `yaml:"leeway" default:"30s" min:"0s" max:"5m"`
	// Clock skew that `verify` forgives where a token has expired.
	ExpLeeway time.Duration `yaml:"expLeeway" default:"0s" min:"0s" max:"5m"`

	key    string           // its own full key, "" if it is of no file
	file   string           // the file that it is of, "" if it is of none
	places map[string]place // of every key that was given, by full key
}

// LoadProfiles reads the configuration file of cognitoctl. If the file cannot be read, the error is that of package
// os, which matches [fs.ErrNotExist] and the like; every other error is an [*Error].
func LoadProfiles(path string) (*ProfileFile, error) {
	data, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return ParseProfiles(path, data)
}

// ParseProfiles is [LoadProfiles] for a file that has been read. Its name goes into messages, and its directory is what
// relative paths are relative to.
func ParseProfiles(file string, data []byte) (*ProfileFile, error) {
	f := &ProfileFile{file: file}
	d := newProfileDecoder(file)
	switch root := d.syntax(data); {
	case root == nil:
	case root.Kind == yaml.ScalarNode: // somebody may have named the file of a secret
		d.report(at(root), "", "found text (it may be a secret and is not shown), want "+wantSection([]string{"default", "profiles"}), "is this the right file?")
	default:
		d.decode(root, f)
	}
	for _, name := range sortedKeys(f.Profiles) {
		p := f.Profiles[name]
		p.key, p.file, p.places = join("profiles", name), file, d.places
		if !d.bad[p.key] {
			d.profile(&p)
		}
		for i := range p.ClientSecretFile {
			p.ClientSecretFile[i] = beside(file, p.ClientSecretFile[i])
		}
		p.JWKSFile, p.CAFile = beside(file, p.JWKSFile), beside(file, p.CAFile)
		f.Profiles[name] = p
	}
	if _, ok := f.Profiles[f.Default]; f.Default != "" && !ok && !d.bad["profiles"] {
		d.problem("default", fmt.Sprintf("found %s, want a name defined in profiles", quote(f.Default)), hintNames(f.Default, sortedKeys(f.Profiles)))
	}
	if len(d.problems) > 0 {
		return nil, d.error()
	}
	f.places = d.places
	return f, nil
}

func newProfileDecoder(file string) *decoder {
	d := newDecoder(file)
	d.least, d.begin = "profiles", "docs/callers.md has one to begin with"
	d.other, d.brief = hintSecretKey, true
	d.hides = secretLine.MatchString
	return d
}

// beside returns a path that a file names as the process can open it.
func beside(file, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}

var secretLine = regexp.MustCompile(`(?i)secret|password|token`)

// hintSecretKey is for those who look for a place to write a secret.
func hintSecretKey(key string) string {
	if !secretLine.MatchString(key) {
		return ""
	}
	return "a secret does not stand in this file: name where it is in clientSecretFile, clientSecretEnv or clientSecretCommand"
}

// Names returns the names of the profiles in order.
func (f *ProfileFile) Names() []string { return sortedKeys(f.Profiles) }

// Profile returns the profile with this name, or with "" the default one: that which default names, or the only one
// there is. The error is an [*Error]; source says where the name is from, such as --profile.
func (f *ProfileFile) Profile(name, source string) (string, *Profile, error) {
	names := f.Names()
	if name == "" {
		name = f.Default
	}
	if name == "" && len(names) == 1 {
		name = names[0]
	}
	if p, ok := f.Profiles[name]; ok {
		return name, &p, nil
	}
	problem := Problem{Variable: source, Message: fmt.Sprintf("found %s, which is no profile of %s", quote(name), f.file), Hint: hintNames(name, names)}
	if name == "" {
		problem = Problem{
			File: f.file, Line: 1, Column: 1, Key: "default",
			Message: "missing, want it where there are several profiles and none is named", Hint: "name one with --profile: there is " + strings.Join(names, ", "),
		}
	}
	return "", nil, &Error{Problems: []Problem{problem}}
}

// NoProfile returns a profile in which nothing is said but the defaults.
func NoProfile() *Profile {
	p := new(Profile)
	setDefaults(reflect.ValueOf(p).Elem())
	return p
}

// A Setting is what the command line or the environment says for a key of a profile.
type Setting struct {
	// Key is one of a profile's.
	Key string
	// Source is how the user wrote it, such as --client-id or COGNITOCTL_CLIENT_ID. It goes into messages.
	Source string
	// Values are the value, or the values of a list, or the members of a mapping as NAME=VALUE.
	Values []string
}

// With returns a copy of p with what is said elsewhere over it, a later layer over an earlier one. What is over a key
// also replaces what belongs to it: a secret does not outlive its app client's id, nor a key set its issuer. The
// error is an [*Error] with all problems.
func (p *Profile) With(layers ...[]Setting) (*Profile, error) {
	over := *p
	over.places = maps.Clone(p.places)
	if over.places == nil {
		over.places = make(map[string]place)
	}
	d := newProfileDecoder(p.file)
	d.places = over.places
	for _, layer := range layers {
		over.replace(layer)
		for _, s := range layer {
			d.setting(&over, s)
		}
	}
	d.profile(&over)
	if len(d.problems) > 0 {
		for i := range d.problems {
			if d.problems[i].Variable != "" {
				d.problems[i].Key = "" // the flag or variable says it
			}
		}
		return nil, d.error()
	}
	return &over, nil
}

// replaces says which keys a key that is over a profile takes out of it: they say the same in another way, or belong to
// what it replaces.
var replaces = map[string][]string{
	"clientId":            {"clientSecretFile", "clientSecretEnv", "clientSecretCommand"},
	"clientSecretFile":    {"clientSecretEnv", "clientSecretCommand"},
	"clientSecretEnv":     {"clientSecretFile", "clientSecretCommand"},
	"clientSecretCommand": {"clientSecretFile", "clientSecretEnv"},
	"domain":              {"tokenUrl", "authorizeUrl", "revokeUrl", "logoutUrl"},
	"userPoolId":          {"region", "issuer", "jwksUrl", "jwksFile"},
	"issuer":              {"userPoolId", "jwksUrl", "jwksFile"},
	"jwksUrl":             {"jwksFile"},
	"jwksFile":            {"jwksUrl"},
	"clients":             {"anyClient"},
	"anyClient":           {"clients"},
	"roleArn":             {"roleSuffix"},
	"roleSuffix":          {"roleArn"},
}

// replace takes out what the settings of a layer replace.
func (p *Profile) replace(layer []Setting) {
	v := reflect.ValueOf(p).Elem()
	for _, s := range layer {
		if s.Key == "clientId" && (p.ClientID == "" || s.Values[len(s.Values)-1] == p.ClientID) {
			continue
		}
		for _, key := range replaces[s.Key] {
			full := join(p.key, key)
			if s.Key == "clientId" && p.places[full].variable != "" {
				continue // said for this call, and so for this client
			}
			delete(p.places, full)
			v.Field(profileField(key).index).SetZero()
		}
	}
}

// profileField returns the field of a key of a profile.
func profileField(key string) field {
	for _, f := range fieldsOf(reflect.TypeFor[Profile]()) {
		if f.key == key {
			return f
		}
	}
	panic("config: a profile has no key " + key) // a flag for what is not there
}

// setting sets one key.
func (d *decoder) setting(p *Profile, s Setting) {
	f := profileField(s.Key)
	v := reflect.ValueOf(p).Elem().Field(f.index)
	key, from := join(p.key, s.Key), place{variable: s.Source}
	if f.secret { // all that are secret are lists
		defer d.hide(len(d.problems), f.item(), v.Type().Elem(), "")
	}
	d.places[key] = from
	switch v.Kind() {
	case reflect.Slice:
		d.settings(v, f, key, from, s.Values)
	case reflect.Map:
		d.pairs(v, f, key, from, s.Values)
	default:
		if message, hint := set(v, f, s.Values[len(s.Values)-1]); message != "" {
			d.report(from, key, message, hint)
		}
	}
}

func (d *decoder) settings(v reflect.Value, f field, key string, from place, values []string) {
	list := reflect.MakeSlice(v.Type(), len(values), len(values))
	for i, text := range values {
		d.places[itemOf(key, i)] = from
		if message, hint := set(list.Index(i), f.item(), text); message != "" {
			d.report(from, key, message, hint)
		} else if slices.Contains(values[:i], text) {
			d.report(from, key, fmt.Sprintf("found %s a second time, want it once", quote(text)), "")
		}
	}
	v.Set(list)
}

func (d *decoder) pairs(v reflect.Value, f field, key string, from place, values []string) {
	v.Set(reflect.MakeMap(v.Type()))
	for _, text := range values {
		name, value, ok := strings.Cut(text, "=")
		item := reflect.New(v.Type().Elem()).Elem()
		if !ok || !isValid(f.keys, name) {
			d.report(from, key, "found a member that is no NAME=VALUE, want it so, such as tenant=acme", "")
		} else if message, hint := set(item, f.item(), value); message != "" {
			d.report(from, key, message, hint)
		}
		v.SetMapIndex(reflect.ValueOf(name), item)
	}
}

// ProfileKeys returns the keys of a profile in order, each with whether it is a list or mapping.
func ProfileKeys() (keys []string, several map[string]bool) {
	several = make(map[string]bool)
	t := reflect.TypeFor[Profile]()
	for _, f := range fieldsOf(t) {
		kind := t.Field(f.index).Type.Kind()
		keys = append(keys, f.key)
		several[f.key] = kind == reflect.Slice || kind == reflect.Map
	}
	return keys, several
}

// Nearest returns the option that a word was likely meant to be, or "".
func Nearest(word string, options []string) string { return nearest(word, options) }

// Given reports whether a key of the profile was said, in the file or elsewhere.
func (p *Profile) Given(key string) bool {
	_, given := p.places[join(p.key, key)]
	return given
}

// Source says where a key of the profile is from: a place in a file, a flag or a variable; "" if it has its default.
func (p *Profile) Source(key string) string {
	at, given := p.places[join(p.key, key)]
	switch {
	case !given:
		return ""
	case at.variable != "":
		return at.variable
	}
	return fmt.Sprintf("%s:%d", p.file, at.line)
}

// YAML returns the profile with every default filled in, as the file would say it, and where each value is from.
func (p *Profile) YAML() []byte {
	sources := make(map[string]string)
	for _, f := range fieldsOf(reflect.TypeFor[Profile]()) {
		if s := p.Source(f.key); s != "" {
			sources[f.key] = s
		}
	}
	if sources["region"] == "" && p.UserPoolID != "" {
		sources["region"] = "userPoolId"
	}
	return render(reflect.ValueOf(p).Elem(), sources)
}

// profile reports what excludes or contradicts each other in a profile, and fills in what follows from the rest.
func (d *decoder) profile(p *Profile) {
	k := func(key string) string { return join(p.key, key) }
	d.profilePool(p)
	for key, text := range map[string]string{
		"tokenUrl": p.TokenURL, "authorizeUrl": p.AuthorizeURL, "revokeUrl": p.RevokeURL, "logoutUrl": p.LogoutURL, "signOutUrl": p.SignOutURL, "identityEndpoint": p.IdentityEndpoint,
	} {
		if u := d.url(k(key), text); u != nil && key == "tokenUrl" && strings.Trim(u.Path, "/") == "" {
			d.problem(k(key), fmt.Sprintf("found %s without a path, want the whole address of the token endpoint", quote(text)), "write "+strings.TrimRight(text, "/")+"/oauth2/token")
		}
	}
	d.redirectURL(k("redirectUrl"), p.RedirectURL)
	if p.Domain != "" && !d.bad[k("domain")] && !strings.Contains(p.Domain, ".") && p.Region == "" && !d.bad[k("region")] && !d.bad[k("userPoolId")] {
		d.problem(k("domain"), fmt.Sprintf("found the prefix %s without region, want the Region of the pool beside it", quote(p.Domain)), "say region, or userPoolId, which begins with it; a domain of your own is written in full, such as auth.example.com")
	}
	d.oneOfKeys(p, "clientSecretFile", "clientSecretEnv", "clientSecretCommand")
	d.oneOfKeys(p, "roleArn", "roleSuffix")
	d.oneOfKeys(p, "clients", "anyClient")
	for _, key := range []string{"clientSecretFile", "clientSecretEnv"} {
		list := reflect.ValueOf(p).Elem().Field(profileField(key).index)
		if list.Len() > 2 {
			d.problem(k(key), fmt.Sprintf("found %d, want one, or two during a rotation", list.Len()), "")
		}
	}
	d.poolTokens(Pool{TokenUse: p.TokenUse, MachinesOnly: p.MachinesOnly, Audience: p.Audience}, p.key)
}

// profilePool checks what names the user pool, and derives the Region.
func (d *decoder) profilePool(p *Profile) {
	k := func(key string) string { return join(p.key, key) }
	d.oneOfKeys(p, "userPoolId", "issuer")
	d.oneOfKeys(p, "jwksUrl", "jwksFile")
	if p.Issuer != "" {
		d.issuerURL(Pool{Issuer: p.Issuer}, k("issuer"))
	}
	d.url(k("jwksUrl"), p.JWKSURL)
	prefix, _, _ := strings.Cut(p.UserPoolID, "_")
	switch {
	case p.UserPoolID == "" || d.bad[k("userPoolId")] || d.bad[k("region")]:
	case !isValid("region", prefix):
		d.problem(k("userPoolId"), fmt.Sprintf("found %s, want an id that begins with a Region, such as eu-west-1_AbCdEfGhI", p.UserPoolID), "for a stand-in of Cognito, use issuer instead")
	case otherPartition(prefix):
		d.problem(k("userPoolId"), fmt.Sprintf("found %s, whose AWS partition has issuers of its own; want issuer instead", p.UserPoolID), "take the iss of one of the pool's tokens")
	case p.Region != "" && p.Region != prefix:
		d.problem(k("region"), fmt.Sprintf("found %s with userPoolId %s, want the Region that the id begins with", p.Region, p.UserPoolID),
			"write "+prefix+"; for a replica of a multi-Region pool, use issuer instead of userPoolId")
	default:
		p.Region = prefix
	}
}

// oneOfKeys reports all but the first of keys that exclude each other.
func (d *decoder) oneOfKeys(p *Profile, keys ...string) {
	first := ""
	for _, key := range keys {
		switch full := join(p.key, key); {
		case !d.given(full):
		case first == "":
			first = key
		default:
			d.problem(full, "found it beside "+first+", want one of the two", "delete the one that you do not mean")
		}
	}
}

// redirectURL checks the address that the browser comes back to: this machine, as RFC 8252 section 7.3 has it.
func (d *decoder) redirectURL(key, text string) {
	if text == "" || d.bad[key] {
		return
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" || !loopback(u.Hostname()) || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		d.problem(key, "found "+quote(text)+", want http and this machine, such as http://localhost:3000", "it is one of the callback URLs of the app client")
	}
}

// SecretFileProblem explains why a file of [Profile.ClientSecretFile] cannot be opened. Its text does not hold the
// file's name if that may be the secret itself, which people write there.
func (p *Profile) SecretFileProblem(name string, err error) error {
	source := cmp.Or(p.Source("clientSecretFile"), "clientSecretFile")
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	if cognitoSecret.MatchString(filepath.Base(name)) {
		return fmt.Errorf("%s: the file cannot be opened (its name looks like a secret and is not shown): %w", source, err)
	}
	return fmt.Errorf("%s: %s: %w", source, quote(name), err)
}

// cognitoSecret is what secrets that Cognito makes look like; they have about 50 characters.
var cognitoSecret = regexp.MustCompile(`^[0-9a-z+/=]{26,}$`)
