package config

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkParse reads a file of 1,000 clients and 1,000 routes, about 120 KiB.
func BenchmarkParse(b *testing.B) {
	var text strings.Builder
	text.WriteString("clients:\n")
	for i := range 1000 {
		fmt.Fprintf(&text, "  client-%d: {id: id%024d}\n", i, i)
	}
	text.WriteString("pools: {main: {region: eu-west-1, userPoolId: eu-west-1_AbCdEfGhI, anyClient: true}}\nroutes:\n")
	for i := range 1000 {
		fmt.Fprintf(&text, "  - {methods: [GET], path: \"/r%d/{id}\", scopes: {any: [r%d/read]}}\n", i, i)
	}
	data := []byte(text.String())
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Parse("f.yaml", data, nil); err != nil {
			b.Fatal(err)
		}
	}
}
