package main

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A sample belongs to the step on its stack, whatever that called, but for the collector's.
func TestReadTraces(t *testing.T) {
	const traces = `File: extauthz
Type: cpu
-----------+-------------------------------------------------------
      30ms   runtime.memmove
             github.com/cognito-extauthz/extauthz/internal/authz.(*reply).appendTo
             github.com/cognito-extauthz/extauthz/internal/authz.(*Service).CheckMessage
             google.golang.org/grpc.(*Server).processUnaryRPC
-----------+-------------------------------------------------------
      50ms   internal/runtime/syscall.Syscall6
             syscall.RawSyscall6
             google.golang.org/grpc/internal/transport.(*bufWriter).Flush
-----------+-------------------------------------------------------
      10ms   runtime.scanobject
             runtime.gcDrain
-----------+-------------------------------------------------------
      10ms   crypto/internal/fips140/sha256.blockSHANI (inline)
             github.com/cognito-extauthz/extauthz/pkg/validator.(*Cached).Validate
             github.com/cognito-extauthz/extauthz/internal/authz.(*Service).authenticate
             github.com/cognito-extauthz/extauthz/internal/authz.(*Service).verdict
`
	p, err := readTraces(strings.NewReader(traces))
	if err != nil {
		t.Fatal(err)
	}
	want := []share{
		{"system calls: the connections", 0.5},
		{"respond: the answer and its bytes", 0.3},
		{"authenticate: the token's hash, the cache, key, times, claims", 0.1},
		{"garbage collector", 0.1},
	}
	for i := range p.Shares {
		p.Shares[i].CPU = math.Round(p.Shares[i].CPU*1000) / 1000
	}
	if diff := cmp.Diff(want, p.Shares); diff != "" {
		t.Errorf("shares (-want +got)\n%s", diff)
	}
	if got := p.own(); got != 0.4 {
		t.Errorf("the check's own share is %g, want 0.4", got)
	}
	if _, err := readTraces(strings.NewReader("File: extauthz\n")); err == nil {
		t.Error("a profile without samples has no error")
	}
}
