package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cognito-extauthz/extauthz/pkg/cognito/identity"
)

func credentialsCommand() *cobra.Command {
	var export, fresh, noCache bool
	cmd := &cobra.Command{
		Use:   "credentials",
		Short: "Print AWS credentials for the person who has logged in",
		Long: `credentials exchanges the ID token of the person who has logged in for AWS credentials, by an identity
pool, and prints them as the AWS CLI and SDKs take them from a credential_process:

  [profile analyst]                              # in ~/.aws/config
  credential_process = cognitoctl credentials --profile me

They are kept until five minutes before they expire. With several roles, --role-suffix or --role-arn
says which one is wanted.`,
		Example: `  cognitoctl credentials --profile me
  cognitoctl credentials --profile me --role-suffix /Analyst
  eval "$(cognitoctl credentials --profile me --export)"`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := load(cmd, true)
			if err != nil {
				return err
			}
			provider, wait, err := s.identityProvider(cmd, noCache)
			if err != nil {
				return err
			}
			defer wait()
			get := provider.Credentials
			if fresh {
				get = provider.Renew
			}
			c, err := waitFor(cmd.Context(), "AWS credentials", get)
			if err != nil {
				return s.needsLogin(err)
			}
			if export {
				return exportCredentials(c)
			}
			return identity.WriteProcess(os.Stdout, c)
		},
	}
	cmd.Flags().BoolVar(&export, "export", false, "print export commands for a POSIX shell")
	cmd.Flags().BoolVar(&fresh, "fresh", false, "get new ones even if there are good ones")
	cmd.Flags().BoolVar(&noCache, "no-cache", false, "neither read nor write the cache")
	addSettings(cmd, identityFlags, personFlags, poolFlags, endpointFlags)
	return cmd
}

// identityProvider returns what gets the credentials, and what to wait for before the program ends.
func (s *settings) identityProvider(cmd *cobra.Command, noCache bool) (*identity.Provider, func(), error) {
	if s.IdentityPoolID == "" {
		return nil, nil, s.missing("identityPoolId")
	}
	session, _, err := s.session(cmd, true)
	if err != nil {
		return nil, nil, err
	}
	cfg := identity.Config{
		IdentityPoolID: s.IdentityPoolID, UserPoolID: s.UserPoolID, LoginProvider: s.LoginProvider,
		RoleSuffix: s.RoleSuffix, RoleARN: s.RoleARN, Endpoint: s.IdentityEndpoint,
		IDToken: session.IDToken, Timeout: max(identity.DefaultTimeout, s.Timeout), Logger: s.log,
	}
	if cfg.LoginProvider == "" && s.Issuer != "" {
		_, cfg.LoginProvider, _ = strings.Cut(s.Issuer, "://") // the issuer without its scheme is how an identity pool names it
	}
	if !noCache {
		cfg.CacheDir = cacheDir(cmd, credentialsCache)
	}
	if cfg.HTTPClient, err = s.httpClient(); err != nil {
		return nil, nil, err
	}
	provider, err := identity.New(cfg)
	if err != nil {
		return nil, nil, &codedError{exitUsage, err, ""}
	}
	return provider, session.Wait, nil
}

// credentialsCache is the folder of the AWS credentials in that of the caches.
const credentialsCache = "credentials"

// cacheDir returns a folder in that of the caches, "" if there is none.
func cacheDir(cmd *cobra.Command, name string) string {
	dir, _ := place(cmd, cacheDirFlag)
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return ""
		}
		dir = filepath.Join(base, "extauthz")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	return filepath.Join(dir, name)
}

// exportCredentials prints what sh and its kin evaluate.
func exportCredentials(c identity.Credentials) error {
	quoted := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	return printf("export AWS_ACCESS_KEY_ID=%s\nexport AWS_SECRET_ACCESS_KEY=%s\nexport AWS_SESSION_TOKEN=%s\nexport AWS_CREDENTIAL_EXPIRATION=%s\n",
		quoted(c.AccessKeyID), quoted(c.SecretAccessKey()), quoted(c.SessionToken()), quoted(c.Expires.UTC().Format("2006-01-02T15:04:05Z")))
}
