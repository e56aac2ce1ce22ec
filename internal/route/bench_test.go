package route

import (
	"fmt"
	"strings"
	"testing"
)

// largeTable has n rules in the mixture that tables have: services with a collection, items, and a tail.
func largeTable(tb testing.TB, n int) *Table {
	rules := []Rule{{Path: "/healthz", Methods: []string{"GET"}, Public: true}}
	for i := 0; len(rules) < n; i++ {
		service := fmt.Sprintf("/svc-%d", i)
		for _, r := range []Rule{
			{Path: service + "/items", Methods: []string{"GET", "POST"}},
			{Path: service + "/items/{id}", Methods: []string{"GET"}},
			{Path: service + "/items/{id}", Methods: []string{"PUT", "DELETE"}},
			{Path: service + "/items/export", Methods: []string{"GET"}},
			{Path: service + "/**", Methods: []string{"*"}},
		} {
			r.AnyClient = true
			if len(rules) < n {
				rules = append(rules, r)
			}
		}
	}
	return newTable(tb, rules...)
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		table := largeTable(b, n)
		services := max(1, (n-1)/5)
		for _, kind := range []struct{ name, path string }{
			{"literal", "/svc-%d/items"},
			{"variable", "/svc-%d/items/0b9c6f7e"},
			{"tail", "/svc-%d/reports/2026/05"},
		} {
			// 64 routes in turn, so that the large table is not read from one cache line.
			var paths []Path
			for i := range 64 {
				paths = append(paths, parse(b, fmt.Sprintf(kind.path, i*services/64)))
			}
			b.Run(fmt.Sprintf("%s/routes=%d", kind.name, n), func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if table.Match("api.example.com", "GET", paths[i%len(paths)]) == nil {
						b.Fatal("no route")
					}
					i++
				}
			})
		}
	}
}

func BenchmarkParsePath(b *testing.B) {
	for _, c := range []struct{ name, raw string }{
		{"plain", "/v1/customers/0b9c6f7e/orders/42?page=2"},
		{"escapes", "/v1/customers/J%C3%B6rg%20B/orders/42?page=2"},
		{"refused", "/v1/customers/%252e%252e/orders/42"},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = ParsePath(c.raw)
			}
		})
	}
}

func BenchmarkCanonicalHost(b *testing.B) {
	for _, raw := range []string{"api.example.com", "API.example.com:8443"} {
		b.Run(raw, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = CanonicalHost(raw)
			}
		})
	}
}

func BenchmarkNewTable(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		largeTable(b, 10_000)
	}
}

// TestMatchAllocs holds what a match may cost the collector.
func TestMatchAllocs(t *testing.T) {
	table := largeTable(t, 1000)
	for _, tt := range []struct {
		path string
		most float64
	}{
		{"/svc-7/items", 0},
		{"/healthz", 0},
		{"/nothing/here", 0},
		{"/svc-7/items/42", 3}, // the Match and its map
	} {
		p := parse(t, tt.path)
		if got := testing.AllocsPerRun(100, func() { table.Match("api.example.com", "GET", p) }); got > tt.most {
			t.Errorf("matching %s allocates %v times, want at most %v", tt.path, got, tt.most)
		}
	}
	for _, raw := range []string{"/v1/orders/42?x=y", "/", "/a/"} {
		if got := testing.AllocsPerRun(100, func() { _, _ = ParsePath(raw) }); got > 0 {
			t.Errorf("ParsePath(%q) allocates %v times, want none", raw, got)
		}
	}
	if got := testing.AllocsPerRun(100, func() { _, _ = CanonicalHost("api.example.com:443") }); got > 0 {
		t.Errorf("CanonicalHost allocates %v times, want none", got)
	}
}

// BenchmarkWorst has the paths that cost most, of about the 8 KiB that a request's path may have, on a table that allows
// everything: what a caller without a token can make a check cost.
func BenchmarkWorst(b *testing.B) {
	table := strictTables(b)[0].table
	for _, c := range []struct{ name, raw string }{
		{"plain", strings.Repeat("/a", 4000)},
		{"escapes", "/" + strings.Repeat("%41", 2700)},
		{"escapes that stay", "/" + strings.Repeat("%C3%A9", 1350)},
		{"percent signs", "/" + strings.Repeat("%2525", 1600)},
		{"encoded slashes", "/" + strings.Repeat("%2F", 2700)},
		{"readings", "/x/y" + strings.Repeat("/a", maxReadSegments-4) + ";" + strings.Repeat("é", 3800) + "%25252541%3F%2Fa;"},
		{"layers of percent signs", "/x/" + strings.Repeat("%25", 1600) + strings.Repeat("21", 1600)},
		{"everything", "/x/y" + strings.Repeat("/a", maxReadSegments-4) + ";!" + strings.Repeat("b", 3800) + "%25252541%3F%2Fa;!"},
		{"too many segments to read", "/x/y" + strings.Repeat("/a%20", 1500) + ";%25252541%3F%2Fa"},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if p, err := ParsePath(c.raw); err == nil {
					_ = table.Match("api.example.com", "GET", p).Admits(p)
				}
			}
		})
	}
}
