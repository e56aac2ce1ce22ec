package e2e_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs/security.md names the tests that hold what it promises; they are where it says.
func TestSecurityPageNamesTests(t *testing.T) {
	t.Parallel()
	const docs = "../../docs"
	page, err := os.ReadFile(filepath.Join(docs, "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	links := regexp.MustCompile(`\[((?:Test|Fuzz)\w+)\]\(([^)]+)\)`).FindAllStringSubmatch(string(page), -1)
	if len(links) < 40 {
		t.Errorf("found %d tests, want at least 40", len(links))
	}
	for _, link := range links {
		source, err := os.ReadFile(filepath.Join(docs, link[2]))
		if err != nil {
			t.Error(err)
			continue
		}
		if !strings.Contains(string(source), "\nfunc "+link[1]+"(") {
			t.Errorf("found no %s in %s", link[1], link[2])
		}
	}
}
