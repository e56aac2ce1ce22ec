package unary_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

// h2spec's own requests are no gRPC, so they are answered with 415 and a line of text, which is enough for it to look at
// windows too. All of its cases pass, but for those here.
var otherThanH2spec = map[string]string{}

func TestH2spec(t *testing.T) {
	for _, strict := range []bool{false, true} {
		runH2spec(t, strict)
	}
}

func runH2spec(t *testing.T, strict bool) {
	t.Helper()
	addr := serve(t, nil).Addr().(*net.TCPAddr)
	cfg := &config.Config{
		Host: addr.IP.String(), Port: addr.Port, Path: "/", Timeout: 2 * time.Second, MaxHeaderLen: 4000, Strict: strict,
	}
	cases := 0
	for _, group := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		group.Test(cfg)
		each(group, func(tc *spec.TestCase) {
			if tc.Result == nil {
				return
			}
			cases++
			name := tc.Parent.ID() + " " + tc.Desc
			want := otherThanH2spec[name]
			switch {
			case tc.Result.Skipped && want != "skipped", tc.Result.Failed && want == "":
				t.Errorf("%s: %v (skipped: %v)\nrequirement: %s", name, tc.Result.Error, tc.Result.Skipped, strings.TrimSpace(tc.Requirement))
			case !tc.Result.Failed && !tc.Result.Skipped && want != "":
				t.Errorf("%s passes, and is listed", name)
			}
		})
	}
	if cases < 140 {
		t.Errorf("h2spec has run %d cases, want all of its 140 or more", cases)
	}
	t.Logf("%d cases, strict: %v", cases, strict)
}

func each(group *spec.TestGroup, f func(*spec.TestCase)) {
	for _, tc := range append(group.Tests, group.StrictTests...) {
		f(tc)
	}
	for _, g := range group.Groups {
		each(g, f)
	}
}
