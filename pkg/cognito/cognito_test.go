package cognito

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestTokenURL(t *testing.T) {
	for _, tc := range []struct{ region, prefix, want string }{
		{"eu-west-1", "my-app", "https://my-app.auth.eu-west-1.amazoncognito.com/oauth2/token"},
		{"ap-southeast-10", "a", "https://a.auth.ap-southeast-10.amazoncognito.com/oauth2/token"},
		{"us-gov-west-1", "my-app", "https://my-app.auth-fips.us-gov-west-1.amazoncognito.com/oauth2/token"},
		{"", "my-app", `cognito: region is "", want one such as eu-west-1`},
		{"eu-west-1/x", "my-app", `cognito: region is "eu-west-1/x", want one such as eu-west-1`},
		{"cn-north-1", "my-app", `cognito: region is "cn-north-1", whose prefix domains are not documented; set the token URL itself`},
		{"eu-west-1", "", `cognito: domain prefix is "", want 1 to 63 lower-case letters, digits and hyphens, such as my-app; see DomainTokenURL for a domain in full`},
		{"eu-west-1", "evil.example.com/", `cognito: domain prefix is "evil.example.com/", want 1 to 63 lower-case letters, digits and hyphens, such as my-app; see DomainTokenURL for a domain in full`},
		{"eu-west-1", "-a", `cognito: domain prefix is "-a", want 1 to 63 lower-case letters, digits and hyphens, such as my-app; see DomainTokenURL for a domain in full`},
	} {
		got, err := TokenURL(tc.region, tc.prefix)
		if err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("TokenURL(%q, %q) is %s, want %s", tc.region, tc.prefix, got, tc.want)
		}
	}
}

func TestDomainTokenURL(t *testing.T) {
	const no = ", want a host name such as auth.example.com, without https:// and path"
	for domain, want := range map[string]string{
		"auth.example.com":                        "https://auth.example.com/oauth2/token",
		"auth.example.com:8443":                   "https://auth.example.com:8443/oauth2/token",
		"my-app.auth.eu-west-1.amazoncognito.com": "https://my-app.auth.eu-west-1.amazoncognito.com/oauth2/token",
		"":                             `cognito: domain is ""` + no,
		":443":                         `cognito: domain is ":443"` + no,
		"https://auth.example.com":     `cognito: domain is "https://auth.example.com"` + no,
		"auth.example.com/":            `cognito: domain is "auth.example.com/"` + no,
		"auth.example.com/login?":      `cognito: domain is "auth.example.com/login?"` + no,
		"user:canary@auth.example.com": `cognito: domain is "…@auth.example.com"` + no,
		"auth example.com":             `cognito: domain is "auth example.com"` + no,
		"auth.example.com#":            `cognito: domain is "auth.example.com#"` + no,
		"auth.example.com\r\nX-Forwarded-Host: evil/": `cognito: domain is "auth.example.com\r\nX-Forwarded-Host: evil/"` + no,
	} {
		got, err := DomainTokenURL(domain)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("DomainTokenURL(%q) is %s, want %s", domain, got, want)
		}
	}
}

func TestConfig(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func(*Config)
		want string // empty: it is accepted
	}{
		"as it is":                     {func(*Config) {}, ""},
		"without scopes":               {func(c *Config) { c.Scopes = nil }, ""},
		"http on a loopback address":   {func(c *Config) { c.TokenURL = "http://127.0.0.1:9199/oauth2/token" }, ""},
		"http on IPv6 loopback":        {func(c *Config) { c.TokenURL = "http://[::1]:9199/oauth2/token" }, ""},
		"http on localhost":            {func(c *Config) { c.TokenURL = "http://LocalHost:9199/oauth2/token" }, ""},
		"without URL":                  {func(c *Config) { c.TokenURL = "" }, "TokenURL is empty, want https://…"},
		"http":                         {func(c *Config) { c.TokenURL = "http://auth.example.com/oauth2/token" }, "TokenURL is http://auth.example.com/oauth2/token, want https://…, or http://… on a loopback address"},
		"a host that starts like it":   {func(c *Config) { c.TokenURL = "http://127.0.0.1.example.com/" }, "TokenURL is http://127.0.0.1.example.com/, want https://…, or http://… on a loopback address"},
		"http on another address":      {func(c *Config) { c.TokenURL = "http://10.0.0.1/" }, "TokenURL is http://10.0.0.1/, want https://…, or http://… on a loopback address"},
		"a fragment":                   {func(c *Config) { c.TokenURL = "https://auth.example.com/#canary" }, "TokenURL has a user, a query or a fragment, want only https://host/path"},
		"a client of other letters":    {func(c *Config) { c.ClientID = "clié" }, `ClientID is "clié", want the ID of an app client, such as 7a8b9c0d1e2f3g4h5i6j7k8`},
		"a scope with a quote":         {func(c *Config) { c.Scopes = []string{`a"b`} }, `Scopes has "a\"b", want items such as orders/read (RFC 6749 section 3.3)`},
		"a scope with a backslash":     {func(c *Config) { c.Scopes = []string{`a\b`} }, `Scopes has "a\\b", want items such as orders/read (RFC 6749 section 3.3)`},
		"a scope of other letters":     {func(c *Config) { c.Scopes = []string{"é"} }, `Scopes has "é", want items such as orders/read (RFC 6749 section 3.3)`},
		"a scope of all that there is": {func(c *Config) { c.Scopes = []string{"!#[]~/:.-_"} }, ""},
		"a metadata name of no text":   {func(c *Config) { c.ClientMetadata = map[string]string{"\xff": "x"} }, `ClientMetadata["\xff"] is not valid UTF-8`},
		"one request":                  {func(c *Config) { c.Retry.MaxAttempts = 1 }, ""},
		"a backoff that does not grow": {func(c *Config) { c.Retry.MinBackoff, c.Retry.MaxBackoff = time.Second, time.Second }, ""},
		"negative backoff":             {func(c *Config) { c.Retry.MinBackoff = -1 }, "Retry has MaxAttempts 4, MinBackoff -1ns, MaxBackoff 8s and MaxElapsed 30s, want none negative and MinBackoff at most MaxBackoff"},
		"negative MaxElapsed":          {func(c *Config) { c.Retry.MaxElapsed = -1 }, "Retry has MaxAttempts 4, MinBackoff 500ms, MaxBackoff 8s and MaxElapsed -1ns, want none negative and MinBackoff at most MaxBackoff"},
		"another scheme":               {func(c *Config) { c.TokenURL = "file://localhost/etc/passwd" }, "TokenURL is file://localhost/etc/passwd, want https://…, or http://… on a loopback address"},
		"no host":                      {func(c *Config) { c.TokenURL = "auth.example.com" }, "TokenURL is no URL with a host, want https://…"},
		"a password":                   {func(c *Config) { c.TokenURL = "https://me:canary@auth.example.com/" }, "TokenURL has a user, a query or a fragment, want only https://host/path"},
		"a query":                      {func(c *Config) { c.TokenURL = "https://auth.example.com/?key=canary" }, "TokenURL has a user, a query or a fragment, want only https://host/path"},
		"an empty query":               {func(c *Config) { c.TokenURL = "https://auth.example.com/?" }, "TokenURL has a user, a query or a fragment, want only https://host/path"},
		"what is no URL":               {func(c *Config) { c.TokenURL = "https://me:canary @x/%zz" }, "TokenURL is no URL with a host, want https://…"},
		"without client":               {func(c *Config) { c.ClientID = "" }, `ClientID is "", want the ID of an app client, such as 7a8b9c0d1e2f3g4h5i6j7k8`},
		"a client with a line end":     {func(c *Config) { c.ClientID = "abc\n" }, `ClientID is "abc\n", want the ID of an app client, such as 7a8b9c0d1e2f3g4h5i6j7k8`},
		"without secret":               {func(c *Config) { c.Secret = nil }, `Secret is nil, want one such as SecretEnv("COGNITO_CLIENT_SECRET")`},
		"another way to authenticate":  {func(c *Config) { c.AuthStyle = 2 }, "AuthStyle is 2, want AuthBasic or AuthPost"},
		"an empty scope":               {func(c *Config) { c.Scopes = []string{""} }, `Scopes has "", want items such as orders/read (RFC 6749 section 3.3)`},
		"two scopes in one":            {func(c *Config) { c.Scopes = []string{"orders/read orders/write"} }, `Scopes has "orders/read orders/write", want items such as orders/read (RFC 6749 section 3.3)`},
		"metadata that is no text":     {func(c *Config) { c.ClientMetadata = map[string]string{"tenant": "\xff"} }, `ClientMetadata["tenant"] is not valid UTF-8`},
		"metadata without name":        {func(c *Config) { c.ClientMetadata = map[string]string{"": "x"} }, "ClientMetadata has an empty name"},
		"negative EarlyExpiry":         {func(c *Config) { c.EarlyExpiry = -1 }, "EarlyExpiry is -1ns and Timeout 0s, want neither negative"},
		"negative Timeout":             {func(c *Config) { c.Timeout = -1 }, "EarlyExpiry is 0s and Timeout -1ns, want neither negative"},
		"negative attempts":            {func(c *Config) { c.Retry.MaxAttempts = -1 }, "Retry has MaxAttempts -1, MinBackoff 500ms, MaxBackoff 8s and MaxElapsed 30s, want none negative and MinBackoff at most MaxBackoff"},
		"backoff longer than its most": {func(c *Config) { c.Retry.MinBackoff = time.Minute }, "Retry has MaxAttempts 4, MinBackoff 1m0s, MaxBackoff 8s and MaxElapsed 30s, want none negative and MinBackoff at most MaxBackoff"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{TokenURL: originURL, ClientID: clientID, Secret: StaticSecret(secret), Scopes: []string{"orders/read"}}
			tc.edit(&cfg)
			_, err := NewTokenSource(cfg)
			if tc.want == "" {
				if err != nil {
					t.Errorf("got %v, want it accepted", err)
				}
			} else if err == nil || err.Error() != "cognito: "+tc.want {
				t.Errorf("got %v, want cognito: %s", err, tc.want)
			}
		})
	}
}

func TestConfigNamesAllThatIsWrong(t *testing.T) {
	_, err := NewTokenSource(Config{Timeout: -1})
	for _, want := range []string{"TokenURL", "ClientID", "Secret", "Timeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s in it", err, want)
		}
	}
}

func TestConfigMayBeChangedLater(t *testing.T) {
	o := &origin{answer: grant}
	metadata := map[string]string{"tenant": "a"}
	scopes := []string{"orders/write", "orders/read", "orders/write"}
	s := newSource(t, originURL, o.use, func(c *Config) { c.Scopes, c.ClientMetadata = scopes, metadata })
	scopes[0], metadata["tenant"] = "orders/admin", "b"
	wantToken(t, s, "token-1")
	want := url.Values{"grant_type": {"client_credentials"}, "scope": {"orders/read orders/write"}, "aws_client_metadata": {`{"tenant":"a"}`}}
	if got := o.requests[0].form; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the form is %v, want %v", got, want)
	}
}

func TestWhatIsNotSetIsNotSent(t *testing.T) {
	o := &origin{answer: grant}
	s := newSource(t, originURL, o.use, func(c *Config) { c.Scopes, c.ClientMetadata = nil, map[string]string{} })
	wantToken(t, s, "token-1")
	if got, want := o.requests[0].form.Encode(), "grant_type=client_credentials"; got != want {
		t.Errorf("the form is %s, want %s", got, want)
	}
}

func TestCheckURL(t *testing.T) {
	if err := CheckURL("revokeURL", "https://auth.example.com/oauth2/revoke"); err != nil {
		t.Error(err)
	}
	if err := CheckURL("revokeURL", "http://auth.example.com/"); err == nil || !strings.HasPrefix(err.Error(), "revokeURL is http://auth.example.com/, want https") {
		t.Errorf("got %v, want it to name the setting", err)
	}
}
