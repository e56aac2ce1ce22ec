package config

import (
	"strings"
	"testing"
)

const withBundles = minimal + `
policy: {minRevision: "17", decision: data.acme.allow}
opa:
  services: {main: {url: https://bundles.example.com, credentials: {bearer: {token: hunter2hunter2}}}}
  bundles: {main: {resource: bundle.tar.gz}}
`

// What is in the section opa may be a credential: it is not shown, but a change of it is.
func TestOPAIsNotShown(t *testing.T) {
	t.Parallel()
	c := parse(t, withBundles)
	if !c.HasBundles() || parse(t, minimal).HasBundles() {
		t.Error("bundles are seen where there are none, or not where there are")
	}
	if text := c.String(); strings.Contains(text, "hunter2") || strings.Contains(text, "bundles.example.com") {
		t.Errorf("the effective configuration shows what is in opa:\n%s", text)
	}
	other := parse(t, strings.Replace(withBundles, "hunter2hunter2", "hunter3hunter3", 1))
	if c.Revision() == other.Revision() {
		t.Errorf("the revision is %s with another opa, want another", other.Revision())
	}
	again := parse(t, string(c.YAML()))
	if c.Revision() != again.Revision() {
		t.Errorf("the effective configuration has the revision %s, want %s", again.Revision(), c.Revision())
	}
}

// Whatever is wrong in the section, or near it, no message quotes it.
func TestMessagesDoNotShowOPA(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"text":             "opa: hunter2\n",
		"a list":           "opa: [hunter2]\n",
		"a number":         "opa: 0x1234\n",
		"a tag":            "opa:\n  services: !hunter2 x\n",
		"an anchor":        "opa:\n  services: &hunter2 x\n",
		"an unknown alias": "opa:\n  services: *hunter2\n",
		"no YAML":          "opa:\n  services:\n    token: 'hunter2'hunter2\n",
		"no YAML in flow":  "opa: {services: {token: 'hunter2'hunter2}}\n",
		"an open quote":    "opa:\n  token: 'hunter2\n",
		"a bad number":     "opa:\n  token: 0x1234\n",
		"a key":            "opa:\n  0x1234: 5\n",
		"a merge":          "opa:\n  <<: {hunter2: 1}\n",
	} {
		_, err := Parse("f.yaml", []byte(minimal+text), nil)
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "1234") {
			t.Errorf("%s: the message shows it: %v", name, err)
		}
	}
}
