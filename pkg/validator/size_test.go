package validator

import (
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"math/big"
	"runtime"
	"strings"
	"testing"
	"time"
)

// What the cache believes a token to take is about what it takes.
func TestSize(t *testing.T) {
	const n = 500
	for name, more := range map[string]string{
		"a machine's":       ``,
		"with many scopes":  `,"more":"` + strings.Repeat("resource-server/some-scope ", 100) + `"`,
		"with nested lists": `,"cognito:groups":[` + strings.Repeat(`{"name":"group","roles":["a","b",1,2,null]},`, 20) + `0]`,
		"with many claims":  manyClaims(40),
	} {
		t.Run(name, func(t *testing.T) {
			p, err := newPool(Config{
				Issuers: []string{"https://issuer.example/pool"}, AllowAnyClient: true,
				Keys: StaticKeys{"kid": {N: new(big.Int).SetBit(big.NewInt(1), 2047, 1), E: 65537}},
				Now:  func() time.Time { return time.Unix(1_800_000_000, 0) },
			})
			if err != nil {
				t.Fatal(err)
			}
			c, err := NewCached(&Validator{}, CacheConfig{Bytes: 1 << 30})
			if err != nil {
				t.Fatal(err)
			}
			var estimate uint64
			before := heap()
			for i := range n {
				ver := unsignedVerification(t, p, i, more)
				estimate += uint64(ver.size())
				c.verified.Set(digest{byte(i), byte(i >> 8)}, ver)
			}
			got := heap() - before
			if estimate < got*19/20 || estimate > 3*got/2 {
				t.Errorf("%d bytes each, estimated as %d, want the estimate not much below it and less than half above", got/n, estimate/n)
			}
			t.Logf("%d bytes each, estimated as %d", got/n, estimate/n)
			runtime.KeepAlive(c)
		})
	}
}

func manyClaims(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"custom:claim-%d":"value %d"`, i, i)
	}
	return b.String()
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// unsignedVerification is what is made of a token as Cognito makes them for the client credentials grant.
func unsignedVerification(t *testing.T, p *pool, i int, more string) *verification {
	t.Helper()
	enc := base64.RawURLEncoding.EncodeToString
	claims := fmt.Sprintf(`{"sub":"7a8b9c0d1e2f3g4h5i6j%05d","token_use":"access","scope":"orders/read orders/write","auth_time":1800000000,`+
		`"iss":"https://issuer.example/pool","exp":1800003600,"iat":1800000000,"version":2,"jti":"0d9c2f4e-7a1b-4c3d-8e5f-%012d","client_id":"7a8b9c0d1e2f3g4h5i6j%05d"%s}`, i, i, i, more)
	parsed, err := parse(enc([]byte(`{"kid":"dGhlIGtpZCBvZiBhIGtleSBvZiBDb2duaXRvJ3M=","alg":"RS256"}`))+"."+enc([]byte(claims))+"."+enc(make([]byte, 256)), nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.claims("https://issuer.example/pool", parsed.claims)
	if err != nil {
		t.Fatal(err)
	}
	return &verification{pool: p, claims: c, kid: parsed.kid, key: &rsa.PublicKey{}, good: true}
}
