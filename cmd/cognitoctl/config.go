package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cognito-extauthz/extauthz/internal/config"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

func profilesCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "profiles",
		Short: "List the profiles of the configuration file",
		Long: `profiles lists the profiles of the configuration file; a * marks the one that counts where none is
named. cognitoctl config show shows all of one.`,
		Example: "  cognitoctl profiles",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, path, err := wantFile(cmd, nil)
			if err != nil {
				return err
			}
			return listProfiles(file, path, asJSON)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// A listedProfile is a line of profiles as JSON.
type listedProfile struct {
	Name     string `json:"name"`
	Default  bool   `json:"default"`
	ClientID string `json:"client_id"`
	Endpoint string `json:"endpoint"`
}

func listProfiles(file *config.ProfileFile, path string, asJSON bool) error {
	standard, _, _ := file.Profile("", "") // with several and no default there is none
	list := make([]listedProfile, 0, len(file.Profiles))
	for _, name := range file.Names() {
		p := file.Profiles[name]
		list = append(list, listedProfile{name, name == standard, p.ClientID, host(&p)})
	}
	if asJSON {
		return printJSON(map[string]any{"file": path, "profiles": list})
	}
	width, clients := 0, 0
	for _, p := range list {
		width, clients = max(width, len(p.Name)), max(clients, len(p.ClientID))
	}
	for _, p := range list {
		mark := " "
		if p.Default {
			mark = "*"
		}
		if err := printf("%s %-*s  %-*s  %s\n", mark, width, p.Name, clients, p.ClientID, p.Endpoint); err != nil {
			return err
		}
	}
	return nil
}

// host says where a profile's endpoints are.
func host(p *config.Profile) string {
	s := settings{Profile: p}
	if text, err := s.tokenURL(); err == nil {
		if u, err := url.Parse(text); err == nil {
			return u.Host
		}
	}
	if p.UserPoolID != "" {
		return p.UserPoolID
	}
	return p.Issuer
}

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check and show the configuration file",
		Long: `The configuration file holds profiles: what does not change about an app client, under a name. It is
YAML, at the place that cognitoctl config path prints, or where --config or COGNITOCTL_CONFIG says:

  default: orders
  profiles:
    orders:                          # a machine
      domain: my-team                # or tokenUrl
      userPoolId: eu-west-1_AbCdEfGhI
      clientId: 7a8b9c0d1e2f3g4h5i6j7k8
      clientSecretFile: [orders.secret]
      scopes: [orders/read]
    me:                              # a person, who logs in
      domain: my-team
      userPoolId: eu-west-1_AbCdEfGhI
      clientId: 3n4b5urk1ft4fl3mg5e62d9ado
      scopes: [openid, email]

Secrets do not stand in the file: it says in which file or variable they are, or which command prints
them. Each key is also a flag and a variable; a flag counts most, then a variable, then the profile.`,
		Args: knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(checkCommand(), showCommand(), &cobra.Command{
		Use:     "path",
		Short:   "Print where the configuration file is, or would be",
		Example: "  mkdir -p \"$(dirname \"$(cognitoctl config path)\")\"\n  ${EDITOR:-vi} \"$(cognitoctl config path)\"",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := configPath(cmd)
			if err != nil {
				return err
			}
			return printf("%s\n", path)
		},
	}, &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON Schema of the configuration file, for editors",
		Example: "  cognitoctl config schema > cognitoctl.schema.json",
		Args:    noArguments,
		RunE:    func(*cobra.Command, []string) error { return printf("%s", config.ProfileSchema()) },
	})
	return cmd
}

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check the configuration file, and say everything that is wrong with it",
		Long: `check reads the configuration file, or FILE, and prints every problem with file, line and column. It
connects to nothing, runs no command and opens no file that holds a secret.`,
		Example: "  cognitoctl config check\n  cognitoctl config check ./cognitoctl.yaml",
		Args:    arguments(0, 1, "at most one file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, path, err := wantFile(cmd, args)
			if err != nil {
				return err
			}
			return printf("%s: ok (profiles: %d)\n", path, len(file.Profiles))
		},
	}
}

// wantFile reads the configuration file, or the one that args name; there has to be one.
func wantFile(cmd *cobra.Command, args []string) (*config.ProfileFile, string, error) {
	if len(args) > 0 {
		must(cmd.Flags().Set(configFlag, args[0]))
	}
	path, err := configPath(cmd)
	if err != nil {
		return nil, "", err
	}
	file, err := loadFile(cmd)
	if file == nil && err == nil {
		err = &codedError{exitUsage, fmt.Errorf("there is no configuration file %s", path), "cognitoctl config --help shows how to write one"}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = &codedError{exitUsage, err, "cognitoctl config --help shows how to write one"}
	}
	return file, path, err
}

func showCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show what counts: the profile, with the environment over it, and where each value is from",
		Long: `show prints the profile as the other commands see it: with what the environment says over it, with every
default filled in, and with the place that each value is from. Behind it, as comments, stand the addresses
and issuers that follow from it. No secret is read or shown.`,
		Example: "  cognitoctl config show --profile orders",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := load(cmd, false)
			if err != nil {
				return err
			}
			if s.name != "" {
				if err := printf("# profile %s\n", s.name); err != nil {
					return err
				}
			}
			return printf("%s%s", s.YAML(), s.derived())
		},
	}
	addSettings(cmd, clientFlags, endpointFlags, poolFlags, verifyFlags, loginFlags, logoutFlags, identityFlags)
	return cmd
}

// derived says what follows from the settings and is not among them, as comments of YAML.
func (s *settings) derived() string {
	var b strings.Builder
	add := func(key, value, from string) {
		if b.Len() == 0 {
			b.WriteString("# what follows from it:\n")
		}
		fmt.Fprintf(&b, "# %s: %s # from %s\n", key, visible(value), from)
	}
	if text, err := s.tokenURL(); err == nil {
		from := "tokenUrl"
		if s.TokenURL == "" {
			from = "domain"
			if !strings.Contains(s.Domain, ".") {
				from = "domain, region"
			}
			add("tokenUrl", text, from)
		}
		if base, ok := strings.CutSuffix(text, "/oauth2/token"); ok && s.AuthorizeURL == "" {
			add("authorizeUrl", base+"/oauth2/authorize", from)
		}
	}
	if s.Issuer == "" && s.UserPoolID != "" {
		add("issuer", strings.Join(s.issuers(), " or "), "userPoolId")
	}
	if issuers := s.issuers(); issuers != nil && s.JWKSURL == "" && s.JWKSFile == "" {
		from := "userPoolId"
		if s.Issuer != "" {
			from = "issuer"
		}
		add("jwksUrl", validator.JWKSURL(issuers[0]), from)
	}
	return b.String()
}
