package validator_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

func jwkOf(k cognitotest.Key) map[string]any {
	enc := base64.RawURLEncoding.EncodeToString
	return map[string]any{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": k.ID,
		"n": enc(k.Private.N.Bytes()), "e": enc(big.NewInt(int64(k.Private.E)).Bytes()),
	}
}

// Each case changes one thing in one of two keys that are accepted. The other must stay usable.
func TestParseJWKS(t *testing.T) {
	p := newPool(t)
	small := base64.RawURLEncoding.EncodeToString(append([]byte{0x80}, make([]byte, 127)...))
	large := base64.RawURLEncoding.EncodeToString(append([]byte{0x80}, make([]byte, 1024)...))
	tests := []struct {
		name string
		edit func(map[string]any)
		want string // part of the problem; empty: the key is used
	}{
		{"nothing changed", func(map[string]any) {}, ""},
		{"no use", func(j map[string]any) { delete(j, "use") }, ""},
		{"no alg", func(j map[string]any) { delete(j, "alg") }, ""},
		{"key_ops verify", func(j map[string]any) { j["key_ops"] = []string{"verify"} }, ""},
		{"a member that nobody knows", func(j map[string]any) { j["issued"] = 1 }, ""},
		{"use enc", func(j map[string]any) { j["use"] = "enc" }, "use"},
		{"use null", func(j map[string]any) { j["use"] = nil }, "use"},
		{"alg RS512", func(j map[string]any) { j["alg"] = "RS512" }, "alg"},
		{"alg PS256", func(j map[string]any) { j["alg"] = "PS256" }, "alg"},
		{"key_ops sign", func(j map[string]any) { j["key_ops"] = []string{"sign"} }, "key_ops"},
		{"key_ops no list", func(j map[string]any) { j["key_ops"] = "verify" }, "key_ops"},
		{"kty EC", func(j map[string]any) { j["kty"] = "EC" }, "kty"},
		{"no kty", func(j map[string]any) { delete(j, "kty") }, "kty"},
		{"a symmetric key", func(j map[string]any) { j["kty"] = "oct"; j["k"] = "c2VjcmV0" }, "secret"},
		{"a private key", func(j map[string]any) { j["d"] = "AQAB" }, "secret"},
		{"a private factor", func(j map[string]any) { j["p"] = "AQAB" }, "secret"},
		{"no kid", func(j map[string]any) { delete(j, "kid") }, "kid"},
		{"kid a number", func(j map[string]any) { j["kid"] = 7 }, "kid"},
		{"kid empty", func(j map[string]any) { j["kid"] = "" }, "kid"},
		{"kid too long", func(j map[string]any) { j["kid"] = strings.Repeat("k", 257) }, "kid"},
		{"no n", func(j map[string]any) { delete(j, "n") }, "n or e"},
		{"n a number", func(j map[string]any) { j["n"] = 5 }, "n or e"},
		{"n no base64url", func(j map[string]any) { j["n"] = "!!" }, "n or e"},
		{"n of 1024 bits", func(j map[string]any) { j["n"] = small }, "1024 bits"},
		{"n of 8200 bits", func(j map[string]any) { j["n"] = large }, "8200 bits"},
		{"n in standard base64", func(j map[string]any) { j["n"] = standard(j["n"]) }, "n or e"},
		{"n padded", func(j map[string]any) { j["n"] = j["n"].(string) + "==" }, "n or e"},
		{"n with a line break", func(j map[string]any) { j["n"] = j["n"].(string) + "\n" }, "n or e"},
		{"n with a leading zero", func(j map[string]any) { j["n"] = leadingZero(j["n"]) }, ""},
		{"n even", func(j map[string]any) { j["n"] = even(j["n"]) }, "even"},
		{"e with a leading zero", func(j map[string]any) { j["e"] = "AAEAAQ" }, ""},
		{"e of 65 bits, of which 64 are the usual ones", func(j map[string]any) { j["e"] = "AQAAAAAAAQAB" }, "65 bits"},
		{"e a number", func(j map[string]any) { j["e"] = 65537 }, "n or e"},
		{"e empty", func(j map[string]any) { j["e"] = "" }, "n or e"},
		{"e even", func(j map[string]any) { j["e"] = "Ag" }, "exponent"},
		{"e one", func(j map[string]any) { j["e"] = "AQ" }, "exponent"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			changed, other := jwkOf(p.AccessKey()), jwkOf(p.IDKey())
			test.edit(changed)
			text, err := json.Marshal(map[string]any{"keys": []any{changed, other}})
			if err != nil {
				t.Fatal(err)
			}
			keys, problems, err := validator.ParseJWKS(text)
			if err != nil || keys[p.IDKey().ID] == nil {
				t.Fatalf("error is %v and keys %v, want the other key to be used", err, keys)
			}
			if test.want == "" && (len(keys) != 2 || len(problems) > 0) {
				t.Errorf("problems are %v, want none", problems)
			}
			if test.want != "" && (len(keys) != 1 || len(problems) != 1 || !strings.Contains(problems[0].String(), test.want)) {
				t.Errorf("%d keys, problems are %v, want one with %q", len(keys), problems, test.want)
			}
		})
	}
}

func TestParseJWKSWithOneKidTwice(t *testing.T) {
	p := newPool(t)
	a, b := jwkOf(p.AccessKey()), jwkOf(p.IDKey())
	c := jwkOf(p.AddKey())
	c["kid"] = a["kid"]
	keys, problems, err := validator.ParseJWKS(mustJSON(t, map[string]any{"keys": []any{a, b, c, a}}))
	if err != nil || len(keys) != 1 || keys[p.IDKey().ID] == nil || len(problems) == 0 {
		t.Errorf("keys %v, problems %v, error %v, want only the key whose kid is its own", keys, problems, err)
	}
	if keys, _, err := validator.ParseJWKS(mustJSON(t, map[string]any{"keys": []any{b, b}})); err != nil || len(keys) != 1 {
		t.Errorf("the same key twice: keys %v, error %v, want it once", keys, err)
	}
}

func TestParseJWKSRefuses(t *testing.T) {
	key := string(mustJSON(t, jwkOf(newPool(t).AccessKey())))
	for name, text := range map[string]string{
		"nothing":             "",
		"no JSON":             "<html>",
		"no object":           "[]",
		"no keys":             "{}",
		"keys null":           `{"keys":null}`,
		"keys an object":      `{"keys":{}}`,
		"an empty set":        `{"keys":[]}`,
		"no usable key":       `{"keys":[{}]}`,
		"items of any kind":   `{"keys":[1,null,"x",[]]}`,
		"a member twice":      `{"keys":[],"keys":[` + key + `]}`,
		"something after it":  `{"keys":[` + key + `]}{}`,
		"more than a MiB":     `{"keys":[` + key + `]}` + strings.Repeat(" ", validator.MaxJWKSBytes),
		"nested for ever":     strings.Repeat(`{"keys":[`, 10000),
		"under another case":  `{"Keys":[` + key + `]}`,
		"a key without a set": key,
	} {
		if keys, _, err := validator.ParseJWKS([]byte(text)); err == nil || keys != nil {
			t.Errorf("%s: keys %v, error %v, want an error", name, keys, err)
		}
	}
}

func TestReplaceableKeys(t *testing.T) {
	p, q := newPool(t), newPool(t)
	a, b := staticKeys(t, p), staticKeys(t, q)
	keys, err := validator.NewReplaceableKeys(a)
	if err != nil {
		t.Fatal(err)
	}
	want := func(has, hasNot cognitotest.Key) {
		t.Helper()
		key, err := keys.PublicKey(t.Context(), has.ID, now)
		if err != nil || !key.Equal(&has.Private.PublicKey) {
			t.Errorf("%v with error %v, want the key", key, err)
		}
		if key, err := keys.PublicKey(t.Context(), hasNot.ID, now); !errors.Is(err, validator.ErrUnknownKey) || key != nil {
			t.Errorf("%v with error %v, want none", key, err)
		}
	}
	want(p.AccessKey(), q.AccessKey())
	if err := keys.Replace(b); err != nil {
		t.Fatal(err)
	}
	want(q.AccessKey(), p.AccessKey())
	b[p.AccessKey().ID] = a[p.AccessKey().ID] // what the caller does with its map later is its own affair
	for name, bad := range map[string]validator.StaticKeys{"none": nil, "a nil key": {"x": nil}} {
		if _, err := validator.NewReplaceableKeys(bad); err == nil {
			t.Errorf("%s: accepted at first", name)
		}
		if err := keys.Replace(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	want(q.AccessKey(), p.AccessKey())
}

func FuzzParseJWKS(f *testing.F) {
	p := newPool(f)
	f.Add(p.JWKS())
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AA"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, problems, err := validator.ParseJWKS(text)
		if (err == nil) != (len(keys) > 0) {
			t.Fatalf("%d keys with error %v", len(keys), err)
		}
		for kid, key := range keys {
			if kid == "" || key.N.BitLen() < 2048 || key.N.BitLen() > 8192 || key.E < 3 {
				t.Fatalf("key %q was accepted: %v", kid, key)
			}
		}
		_ = fmt.Sprint(problems)
	})
}

func octets(n any) []byte {
	b, err := base64.RawURLEncoding.DecodeString(n.(string))
	if err != nil {
		panic(err)
	}
	return b
}

// standard writes the number in base64 as mail has it, padded.
func standard(n any) string { return base64.StdEncoding.EncodeToString(octets(n)) }

func leadingZero(n any) string {
	return base64.RawURLEncoding.EncodeToString(append([]byte{0}, octets(n)...))
}

func even(n any) string {
	b := octets(n)
	b[len(b)-1] &^= 1
	return base64.RawURLEncoding.EncodeToString(b)
}
