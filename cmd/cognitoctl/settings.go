package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cognito-extauthz/extauthz/internal/config"
	"github.com/cognito-extauthz/extauthz/pkg/cognito/login"
)

// A setting is a key of a profile as a flag. The variable of a key is COGNITOCTL_ and the key in upper case.
type setting struct {
	flag, key string
	value     string // what the value is called in the help; empty for a switch
	usage     string
}

// A settingGroup is a part of the help. Commands take whole groups, so that a flag means the same everywhere.
type settingGroup struct {
	title    string
	settings []setting
}

var (
	clientFlags = settingGroup{"App client", []setting{
		{"client-id", "clientId", "ID", "the app client"},
		{"client-secret-file", "clientSecretFile", "FILE", "file that holds its secret; repeat it for the second one of a rotation"},
		{"client-secret-env", "clientSecretEnv", "NAME", "environment variable that holds its secret (default COGNITOCTL_CLIENT_SECRET)"},
		{"client-secret-command", "clientSecretCommand", "COMMAND", "shell command that prints its secret"},
		{"auth-style", "authStyle", "STYLE", "how it authenticates: basic or post (default basic)"},
		{"scope", "scopes", "SCOPE", "scope to ask for, such as orders/read; may be repeated (default all that the client may have)"},
		{"client-metadata", "clientMetadata", "NAME=VALUE", "metadata for the pool's pre token generation trigger; may be repeated"},
	}}
	endpointFlags = settingGroup{"Token endpoint", []setting{
		{"domain", "domain", "DOMAIN", "the pool's domain: a prefix such as my-team, with --region; or auth.example.com"},
		{"region", "region", "REGION", "the pool's AWS Region"},
		{"token-url", "tokenUrl", "URL", "the token endpoint in full, instead of --domain"},
		{"timeout", "timeout", "DURATION", "time for one request (default 10s)"},
		{"ca-file", "caFile", "FILE", "certificate authorities (PEM), instead of the system's"},
	}}
	poolFlags = settingGroup{"User pool", []setting{
		{"user-pool-id", "userPoolId", "ID", "the user pool, such as eu-west-1_AbCdEfGhI"},
		{"issuer", "issuer", "URL", "the exact iss of its tokens, instead of --user-pool-id"},
		{"jwks-url", "jwksUrl", "URL", "where its keys are (default /.well-known/jwks.json under the issuer)"},
		{"jwks-file", "jwksFile", "FILE", "a JWK Set in a file, instead of fetching it"},
	}}
	fetchFlags = settingGroup{"Requests", []setting{
		{"timeout", "timeout", "DURATION", "time for one request (default 10s)"},
		{"ca-file", "caFile", "FILE", "certificate authorities (PEM), instead of the system's"},
	}}
	verifyFlags = settingGroup{"What is wanted of the token", []setting{
		{"client", "clients", "ID", "app client whose tokens are accepted; may be repeated (default that of the profile)"},
		{"any-client", "anyClient", "", "accept the tokens of every app client of the pool"},
		{"required-scope", "requiredScopes", "SCOPE", "scope that the token must have; may be repeated"},
		{"scope-match", "scopeMatch", "all|any", "whether it needs all of them or any one (default all)"},
		{"audience", "audience", "AUD", "value of which the token's aud must have one; may be repeated"},
		{"token-use", "tokenUse", "access|id", "kind of token that is accepted; may be repeated (default access)"},
		{"machines-only", "machinesOnly", "", "refuse tokens that were issued for a person"},
		{"leeway", "leeway", "DURATION", "clock skew forgiven where a token looks not yet valid (default 30s)"},
		{"exp-leeway", "expLeeway", "DURATION", "clock skew forgiven where a token has expired (default 0s)"},
	}}
	personFlags = settingGroup{"App client", []setting{
		{"client-id", "clientId", "ID", "the app client"},
		{"client-secret-file", "clientSecretFile", "FILE", "file that holds its secret, if it has one"},
		{"client-secret-env", "clientSecretEnv", "NAME", "environment variable that holds its secret, if it has one"},
		{"client-secret-command", "clientSecretCommand", "COMMAND", "shell command that prints its secret, if it has one"},
		{"scope", "scopes", "SCOPE", "scope to ask for, such as email or orders/read; may be repeated (default openid)"},
	}}
	loginFlags = settingGroup{"Login", []setting{
		{"redirect-url", "redirectUrl", "URL", "where the browser comes back to, as registered (default http://localhost:3000)"},
		{"login-timeout", "loginTimeout", "DURATION", "time that the person has (default 5m)"},
		{"authorize-url", "authorizeUrl", "URL", "the authorization endpoint, if it is not at the domain"},
	}}
	logoutFlags = settingGroup{"Logout", []setting{
		{"revoke-url", "revokeUrl", "URL", "the revocation endpoint, if it is not at the domain"},
		{"logout-url", "logoutUrl", "URL", "the logout endpoint, if it is not at the domain"},
		{"sign-out-url", "signOutUrl", "URL", "where the browser goes after --browser, as registered (default the redirect URL)"},
	}}
	identityFlags = settingGroup{"Identity pool", []setting{
		{"identity-pool-id", "identityPoolId", "ID", "the identity pool, such as eu-west-1:01234567-89ab-cdef-0123-456789abcdef"},
		{"role-arn", "roleArn", "ARN", "the role to take (default: the identity pool chooses)"},
		{"role-suffix", "roleSuffix", "SUFFIX", "the role to take, by how its ARN ends, such as /Analyst"},
		{"login-provider", "loginProvider", "NAME", "the identity pool's name for the user pool, if it is not the usual one"},
		{"identity-endpoint", "identityEndpoint", "URL", "the endpoint of Cognito Federated Identities, for stand-ins"},
	}}
)

// keyAnnotation and groupAnnotation mark the flags of settings.
const (
	keyAnnotation   = "cognitoctl_key"
	groupAnnotation = "cognitoctl_group"
)

// addSettings gives a command the flags of the groups.
func addSettings(cmd *cobra.Command, groups ...settingGroup) {
	cmd.Flags().SortFlags = false
	for _, g := range groups {
		for _, s := range g.settings {
			if cmd.Flags().Lookup(s.flag) != nil {
				continue // two groups have it
			}
			f := cmd.Flags().VarPF(&texts{placeholder: s.value}, s.flag, "", s.usage)
			if s.value == "" {
				f.NoOptDefVal = "true"
			}
			f.Annotations = map[string][]string{keyAnnotation: {s.key}, groupAnnotation: {g.title}}
		}
	}
	for flag, choices := range map[string][]string{
		"auth-style": {"basic", "post"}, "scope-match": {"all", "any"}, "token-use": {"access", "id"},
	} {
		if cmd.Flags().Lookup(flag) != nil {
			must(cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp)))
		}
	}
}

// must is for what only a programmer can get wrong.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// texts are the values of a flag as they were written. What they mean is internal/config's to say, so that a flag, a
// variable and a file take the same.
type texts struct {
	values      []string
	placeholder string
}

func (t *texts) Set(s string) error { t.values = append(t.values, s); return nil }
func (t *texts) String() string     { return strings.Join(t.values, " ") }
func (t *texts) Type() string       { return t.placeholder }

// The places of what this program reads and writes, and whether it says so, as flags of every command.
const (
	profileFlag  = "profile"
	configFlag   = "config"
	cacheDirFlag = "cache-dir"
	stateDirFlag = "state-dir"
	verboseFlag  = "verbose"
)

func addPlaces(root *cobra.Command) {
	flags := root.PersistentFlags()
	for _, f := range []struct{ name, value, usage string }{
		{profileFlag, "NAME", "the profile to use (default that of the configuration file, or its only one)"},
		{configFlag, "FILE", "the configuration file (default cognitoctl/config.yaml in the user's configuration folder)"},
		{cacheDirFlag, "FOLDER", "where tokens of machines and AWS credentials are cached (default extauthz in the user's cache folder)"},
		{stateDirFlag, "FOLDER", "where logins are kept (default cognitoctl/logins in the user's configuration folder)"},
	} {
		flags.Var(&texts{placeholder: f.value}, f.name, f.usage)
	}
	flags.VarPF(&texts{}, verboseFlag, "", "say on standard error what happens: requests, caches, refreshes").NoOptDefVal = "true"
	must(root.RegisterFlagCompletionFunc(profileFlag, completeProfile))
}

// place returns what a flag of addPlaces or its variable says, and which of them does; "" if neither does.
func place(cmd *cobra.Command, flag string) (value, source string) {
	if f := cmd.Flags().Lookup(flag); f != nil && f.Changed {
		values := f.Value.(*texts).values
		return values[len(values)-1], "--" + flag
	}
	name := variablePrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
	if v := os.Getenv(name); v != "" {
		return v, name
	}
	return "", ""
}

// variablePrefix begins the names of this program's variables.
const variablePrefix = "COGNITOCTL_"

// secretVariable holds the secret of a machine's app client itself.
const secretVariable = variablePrefix + "CLIENT_SECRET"

// variableName returns the variable of a key: COGNITOCTL_CLIENT_ID of clientId.
func variableName(key string) string {
	var b strings.Builder
	for _, r := range key {
		if unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return variablePrefix + b.String()
}

// settings are a profile with the environment and the command line over it.
type settings struct {
	*config.Profile
	name    string // of the profile; empty if there is none
	leftOut string // why no profile counts although there are some, as a hint; else empty
	log     *slog.Logger
}

// load returns what a command has to work with. Where it is about a person's login, the secret in secretVariable, which
// is a machine's, does not count: it must not be sent for the app client that people log in with.
func load(cmd *cobra.Command, person bool) (*settings, error) {
	if err := checkVariables(os.Environ()); err != nil {
		return nil, err
	}
	environ, flags := fromEnvironment(), fromFlags(cmd)
	if os.Getenv(secretVariable) != "" && !person {
		environ = append(environ, config.Setting{Key: "clientSecretEnv", Source: secretVariable, Values: []string{secretVariable}})
	}
	if err := checkScopes(environ, flags); err != nil {
		return nil, err
	}
	s, err := chooseProfile(cmd, environ, flags)
	if err != nil {
		return nil, err
	}
	if s.log, err = logger(cmd); err != nil {
		return nil, err
	}
	s.Profile, err = s.With(environ, flags)
	return s, err
}

// chooseProfile returns the profile that is named, or the default one. That is left out if the command line or the
// environment names another app client: it would be about something else.
func chooseProfile(cmd *cobra.Command, layers ...[]config.Setting) (*settings, error) {
	named, source := place(cmd, profileFlag)
	file, err := loadFile(cmd)
	if err != nil {
		return nil, err
	}
	if file == nil && named == "" {
		return &settings{Profile: config.NoProfile()}, nil
	}
	if file == nil {
		path, err := configPath(cmd)
		if err == nil {
			err = &codedError{exitUsage, fmt.Errorf("%s names the profile %q, and there is no configuration file %s", source, named, path), "cognitoctl config --help shows how to write one"}
		}
		return nil, err
	}
	name, p, err := file.Profile(named, source)
	switch {
	case named != "":
		return &settings{Profile: p, name: name}, err
	case err != nil: // flags may say all that is needed
		return &settings{Profile: config.NoProfile(), leftOut: "or name a profile with --profile: there is " + strings.Join(file.Names(), ", ")}, nil
	case namesAnother(slices.Concat(layers...), p):
		hint := fmt.Sprintf("the default profile %s does not count, as another app client is named; --profile %s takes it nevertheless", name, name)
		return &settings{Profile: config.NoProfile(), leftOut: hint}, nil
	}
	return &settings{Profile: p, name: name}, nil
}

// namesAnother reports whether another app client is named than the profile's.
func namesAnother(all []config.Setting, p *config.Profile) bool {
	return slices.ContainsFunc(all, func(s config.Setting) bool { return s.Key == "clientId" && s.Values[0] != p.ClientID })
}

// loadFile returns the configuration file, nil if there is none and none is asked for.
func loadFile(cmd *cobra.Command) (*config.ProfileFile, error) {
	path, err := configPath(cmd)
	_, source := place(cmd, configFlag)
	if err != nil {
		if source == "" {
			return nil, nil //nolint:nilnil // documented above; without a home there is no file
		}
		return nil, err
	}
	file, err := config.LoadProfiles(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && source == "":
		return nil, nil //nolint:nilnil // documented above
	case errors.As(err, new(*config.Error)):
		return nil, err
	case err != nil:
		return nil, &codedError{exitUsage, err, ""}
	}
	return file, checkWriters(path)
}

// configPath returns where the configuration file is, or would be.
func configPath(cmd *cobra.Command) (string, error) {
	if path, _ := place(cmd, configFlag); path != "" {
		return path, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", &codedError{exitUsage, fmt.Errorf("no folder for the configuration file: %w", err), "set HOME, or name the file with --config"}
	}
	return filepath.Join(dir, "cognitoctl", "config.yaml"), nil
}

// fromFlags returns what the command line says.
func fromFlags(cmd *cobra.Command) (all []config.Setting) {
	_, several := config.ProfileKeys()
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		key := f.Annotations[keyAnnotation]
		if !f.Changed || key == nil {
			return
		}
		s := config.Setting{Key: key[0], Source: "--" + f.Name, Values: f.Value.(*texts).values}
		if several[s.Key] {
			s.Values = words(s)
		}
		all = append(all, s)
	})
	return all
}

// fromEnvironment returns what the environment says. An empty variable says nothing.
func fromEnvironment() (all []config.Setting) {
	keys, several := config.ProfileKeys()
	for _, key := range keys {
		name := variableName(key)
		text := os.Getenv(name)
		if text == "" {
			continue
		}
		s := config.Setting{Key: key, Source: name, Values: []string{text}}
		switch {
		case key == "clientSecretFile":
			s.Values = filepath.SplitList(text)
		case several[key]:
			s.Values = words(s)
		}
		all = append(all, s)
	}
	return all
}

// words splits lists at white space, which neither scopes nor ids have. Paths and values of metadata may have it.
func words(s config.Setting) []string {
	if s.Key == "clientSecretFile" || s.Key == "clientMetadata" && strings.HasPrefix(s.Source, "-") {
		return s.Values
	}
	return strings.Fields(strings.Join(s.Values, " "))
}

// checkScopes refuses commas between scopes, of which Cognito would only say that it does not know the scope. A scope that
// has a comma itself can stand in a profile.
func checkScopes(layers ...[]config.Setting) error {
	for _, s := range slices.Concat(layers...) {
		if s.Key != "scopes" && s.Key != "requiredScopes" {
			continue
		}
		for _, v := range s.Values {
			if !strings.Contains(v, ",") {
				continue
			}
			want := "want spaces between scopes"
			if strings.HasPrefix(s.Source, "-") {
				want += ", or " + s.Source + " repeated"
			}
			return &config.Error{Problems: []config.Problem{{Variable: s.Source, Message: fmt.Sprintf("found %q, %s", v, want)}}}
		}
	}
	return nil
}

// checkVariables reports a variable that looks like one of ours and is none, since a misspelt one would say nothing. Others
// that begin the same may be anybody's: secrets, or what Kubernetes sets for a Service.
func checkVariables(environ []string) error {
	known := []string{secretVariable}
	for _, flag := range []string{profileFlag, configFlag, cacheDirFlag, stateDirFlag, verboseFlag} {
		known = append(known, variablePrefix+strings.ToUpper(strings.ReplaceAll(flag, "-", "_")))
	}
	keys, _ := config.ProfileKeys()
	for _, key := range keys {
		known = append(known, variableName(key))
	}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, variablePrefix) || value == "" || slices.Contains(known, name) {
			continue
		}
		if meant := config.Nearest(name, known); meant != "" {
			return &codedError{exitUsage, fmt.Errorf("found the variable %s, which is none of this program's", name), "did you mean " + meant + "?"}
		}
	}
	return nil
}

// missing is the error for a setting that a command cannot do without.
func (s *settings) missing(keys ...string) error {
	var flags, variables []string
	for _, key := range keys {
		flags = append(flags, "--"+flagOf(key))
		variables = append(variables, variableName(key))
	}
	or := func(words []string) string { return strings.Join(words, " or ") }
	hint := "or " + or(variables) + " in the environment, or " + or(keys) + " in a profile"
	if s.leftOut != "" {
		hint = s.leftOut
	}
	return &codedError{exitUsage, fmt.Errorf("nothing says %s, want %s", describe[keys[0]], or(flags)), hint}
}

// needsLogin adds to an error that a new login is needed how to do it.
func (s *settings) needsLogin(err error) error {
	if !errors.Is(err, login.ErrLoginRequired) {
		return err
	}
	hint := "cognitoctl login"
	if s.name != "" {
		hint += " --profile " + s.name
	}
	return &codedError{exitLogin, err, hint}
}

// describe says what a key is about, in the error of who needs it.
var describe = map[string]string{
	"clientId":       "which app client",
	"tokenUrl":       "where the token endpoint is",
	"domain":         "where the pool's endpoints are",
	"userPoolId":     "which user pool",
	"identityPoolId": "which identity pool",
	"clients":        "which app clients are accepted",
}

// flagOf returns the flag of a key.
func flagOf(key string) string {
	for _, g := range []settingGroup{clientFlags, endpointFlags, poolFlags, verifyFlags, loginFlags, logoutFlags, identityFlags} {
		for _, s := range g.settings {
			if s.key == key {
				return s.flag
			}
		}
	}
	panic("cognitoctl: no flag for " + key) // a key without one
}

func completeProfile(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	file, err := loadFile(cmd)
	if err != nil || file == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return file.Names(), cobra.ShellCompDirectiveNoFileComp
}
