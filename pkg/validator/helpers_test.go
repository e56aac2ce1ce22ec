package validator_test

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"testing"
	"time"
)

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// noKeys fails the test that asks for a key.
type noKeys struct{ t testing.TB }

func (k noKeys) PublicKey(context.Context, string, time.Time) (*rsa.PublicKey, error) {
	k.t.Error("a key was looked for")
	return nil, errors.New("no keys")
}

type keysFunc func() error

func (f keysFunc) PublicKey(context.Context, string, time.Time) (*rsa.PublicKey, error) {
	return nil, f()
}
