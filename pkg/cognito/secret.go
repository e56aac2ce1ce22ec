package cognito

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// A Secret yields the secrets of an app client, the current one first. An app client can have two while one is replaced
// by the other (AddUserPoolClientSecret): if the token endpoint answers invalid_client to the first, the second is tried,
// and the one that worked comes first from then on. One item is enough.
//
// It is called for every fetch, never for a token at hand, by several goroutines at once, and must return when the context
// ends. So a secret that changes in its file or its secret store is seen by the next fetch. A function of one's own may ask
// a secret store:
//
//	Secret: func(ctx context.Context) ([]string, error) {
//		out, err := secretsManager.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: aws.String("orders")})
//		if err != nil {
//			return nil, err
//		}
//		return []string{aws.ToString(out.SecretString)}, nil
//	},
type Secret func(ctx context.Context) ([]string, error)

// maxSecrets is the number of active secrets that an app client can have (Amazon Cognito User Pools API Reference,
// AddUserPoolClientSecret).
const maxSecrets = 2

// maxSecretBytes bounds a secret's file. Cognito's secrets have at most 64 characters.
const maxSecretBytes = 4 << 10

// StaticSecret yields the given secrets. Prefer [SecretFile] or [SecretEnv]: a secret in source code is none.
func StaticSecret(secrets ...string) Secret {
	secrets = slices.Clone(secrets)
	return func(context.Context) ([]string, error) { return slices.Clone(secrets), nil }
}

// SecretFile reads one secret from each of the files, such as those of a mounted Kubernetes Secret. Line ends at the end of
// a file are no part of the secret. A file that is missing or empty is passed over as long as another has a secret, so that
// the second may come and go.
func SecretFile(paths ...string) Secret {
	return anyOf(paths, func(path string) (string, error) {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("file %s does not exist", path)
		}
		if err != nil {
			return "", err
		}
		defer f.Close()
		text, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
		if err != nil {
			return "", err
		}
		secret := strings.TrimRight(string(text), "\r\n")
		switch {
		case secret == "":
			return "", fmt.Errorf("file %s is empty", path)
		case len(text) > maxSecretBytes:
			return "", fmt.Errorf("file %s has more than %d bytes, want a secret", path, maxSecretBytes)
		}
		return secret, nil
	})
}

// SecretEnv reads one secret from each of the environment variables. One that is not set or empty is passed over as long
// as another has a secret.
func SecretEnv(names ...string) Secret {
	return anyOf(names, func(name string) (string, error) {
		if secret := os.Getenv(name); secret != "" {
			return secret, nil
		}
		return "", fmt.Errorf("environment variable %s is not set", name)
	})
}

// anyOf yields the secrets that could be read, and an error if there is none.
func anyOf(names []string, read func(string) (string, error)) Secret {
	names = slices.Clone(names)
	return func(context.Context) ([]string, error) {
		var secrets []string
		var errs []error
		for _, name := range names {
			secret, err := read(name)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			secrets = append(secrets, secret)
		}
		if len(secrets) == 0 {
			return nil, errors.Join(errs...)
		}
		return secrets, nil
	}
}

// secrets calls the function and checks what it yields. The errors name no secret.
func (s Secret) secrets(ctx context.Context) ([]string, error) {
	list, err := s(ctx)
	if err != nil {
		return nil, fmt.Errorf("client secret: %w", err)
	}
	var distinct []string
	for _, secret := range list {
		if strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return nil, errors.New("client secret: one has white space or a control character in it, want the secret alone")
		}
		if secret != "" && !slices.Contains(distinct, secret) {
			distinct = append(distinct, secret)
		}
	}
	if len(distinct) == 0 || len(distinct) > maxSecrets {
		return nil, fmt.Errorf("client secret: there are %d, want one, or two while one is replaced", len(distinct))
	}
	return distinct, nil
}
