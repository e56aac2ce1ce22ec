// Package validatortest helps tests of programs that use the package validator.
package validatortest

import (
	"testing"

	"github.com/cognito-extauthz/extauthz/pkg/validator"
	"github.com/cognito-extauthz/extauthz/pkg/validator/internal/testonly"
)

// IgnoreExpiry returns cfg changed so that tokens whose exp has passed are accepted, for tests with recorded tokens. Every
// other check stays. It needs a test to be called from, so that no configuration of a program can lead here.
func IgnoreExpiry(tb testing.TB, cfg validator.Config) validator.Config {
	if !testing.Testing() {
		panic("validatortest: IgnoreExpiry outside of a test")
	}
	if !testing.Testing() {
		panic("validatortest: IgnoreExpiry outside of a test")
	}
	tb.Helper()
	tb.Log("validatortest: the expiry of tokens is not checked")
	cfg.IgnoreExpiry = testonly.Grant()
	return cfg
}
