package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// blocks returns the YAML of a page by the name of the file that it is of: ```yaml extauthz.yaml.
func blocks(t *testing.T, page string) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	name, indent, open := "", 0, false
	var body strings.Builder
	for line := range strings.SplitSeq(readFile(t, "../../docs/"+page), "\n") {
		mark, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence && !open:
			kind, file, _ := strings.Cut(mark, " ")
			if kind == "yaml" && file == "" {
				t.Errorf("docs/%s has YAML of no file, want one behind ```yaml", page)
			}
			name, indent, open = file, strings.Index(line, "`"), true
			body.Reset()
		case isFence:
			if name != "" {
				all[name] = append(all[name], body.String())
			}
			open = false
		case open:
			body.WriteString(line[min(indent, len(line)):] + "\n")
		}
	}
	return all
}

// whole completes a part of a configuration.
func whole(part string) string {
	for key, value := range map[string]string{
		"clients": "{orders-batch: {id: 7a8b9c0d1e2f3g4h5i6j7k8}}",
		"pools":   "{main: {region: eu-west-1, userPoolId: eu-west-1_AbCdEfGhI, clients: [orders-batch]}}",
		"routes":  "[{path: /healthz, methods: [GET], public: true}]",
	} {
		if !strings.Contains("\n"+part, "\n"+key+":") {
			part += key + ": " + value + "\n"
		}
	}
	return part
}

// Every configuration of the pages on tokens is a good one, and means what the page says.
func TestConfigurationsOfTokensPage(t *testing.T) {
	t.Parallel()
	type pool struct {
		Issuers []string
		Keys    string
	}
	const (
		id        = "/eu-west-1_AbCdEfGhI"
		gov       = "/us-gov-west-1_AbCdEfGhI"
		original  = "https://cognito-idp.eu-west-1.amazonaws.com" + id
		updated   = "https://issuer-cognito-idp.eu-west-1.amazonaws.com" + id
		govIssuer = "https://cognito-idp.us-gov-west-1.amazonaws.com" + gov
		china     = "https://cognito-idp.cn-north-1.amazonaws.com.cn/cn-north-1_AbCdEfGhI"
		sovereign = "https://cognito-idp.eusc-de-east-1.amazonaws.eu/eusc-de-east-1_AbCdEfGhI"
		replica   = "https://cognito-idp.eu-central-1.amazonaws.com" + id
		keys      = "/.well-known/jwks.json"
	)
	want := map[string]pool{
		"main":       {[]string{original}, original + keys},
		"government": {[]string{govIssuer}, govIssuer + keys},
		"changing":   {[]string{original, updated}, original + keys},
		"fips":       {[]string{govIssuer}, "https://cognito-idp-fips.us-gov-west-1.amazonaws.com" + gov + keys},
		"china":      {[]string{china}, china + keys},
		"sovereign":  {[]string{sovereign}, sovereign + keys},
		"replicated": {[]string{updated}, updated + keys},
		"replica":    {[]string{replica}, replica + keys},
		"mirrored":   {[]string{original}, "https://keys.internal.example.com" + id + "/jwks.json"},
		"seeded":     {[]string{original}, original + keys},
		"offline":    {[]string{original}, ""},
	}
	got := make(map[string]pool)
	for _, text := range blocks(t, "tokens.md")["extauthz.yaml"] {
		for name, p := range parse(t, whole(text)).Pools {
			got[name] = pool{p.Issuers(), p.KeysURL()}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pools of docs/tokens.md (-want +got):\n%s", diff)
	}
}

// So is every denylist of the page on it, and every key of an entry is shown.
func TestDenylistsOfThePage(t *testing.T) {
	t.Parallel()
	all := blocks(t, "denylist.md")
	for _, text := range all["extauthz.yaml"] {
		if parse(t, whole(text)).Denylist.File == "" {
			t.Errorf("found %s, want a denylist", text)
		}
	}
	lists := all["denylist.yaml"]
	for _, text := range all["configmap.yaml"] {
		var configMap struct {
			Data map[string]string `yaml:"data"`
		}
		if err := yaml.Unmarshal([]byte(text), &configMap); err != nil || configMap.Data["denylist.yaml"] == "" {
			t.Errorf("found %s and error %v, want a ConfigMap with denylist.yaml", text, err)
		}
		lists = append(lists, configMap.Data["denylist.yaml"])
	}
	var shown Revocation
	for _, text := range lists {
		entries, err := parse(t, whole("")).ParseDenylist("denylist.yaml", []byte(text))
		if err != nil {
			t.Errorf("%v, in\n%s", err, text)
		}
		for _, e := range entries {
			shown = Revocation{
				ClientID: shown.ClientID + e.ClientID, TokenID: shown.TokenID + e.TokenID, Subject: shown.Subject + e.Subject,
				Pool: shown.Pool + e.Pool, IssuedBefore: shown.IssuedBefore + e.IssuedBefore, Note: shown.Note + e.Note,
			}
		}
	}
	if len(lists) < 6 || shown.ClientID == "" || shown.TokenID == "" || shown.Subject == "" || shown.Pool == "" || shown.IssuedBefore == "" || shown.Note == "" {
		t.Errorf("found %d lists with %+v, want all keys of an entry shown", len(lists), shown)
	}
}

// So are those of the pages on policies and the decision log.
func TestConfigurationsOfPolicyPages(t *testing.T) {
	t.Parallel()
	for page, want := range map[string]int{"policy-sources.md": 2, "decision-log.md": 2} {
		all := blocks(t, page)["extauthz.yaml"]
		if len(all) != want {
			t.Errorf("docs/%s has %d configurations, want %d", page, len(all), want)
		}
		for _, text := range all {
			if _, err := Parse("extauthz.yaml", []byte(whole(text)), nil); err != nil {
				t.Errorf("docs/%s: %v", page, err)
			}
		}
	}
}
