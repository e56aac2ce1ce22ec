package identity

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-cmp/cmp"
)

func TestNewNamesTheFieldThatIsWrong(t *testing.T) {
	tests := []struct {
		name string
		edit func(*Config)
		want string // empty: it is accepted
	}{
		{"as it should be", func(*Config) {}, ""},
		{"no identity pool", func(c *Config) { c.IdentityPoolID = "" }, "IdentityPoolID"},
		{"an identity pool without a Region", func(c *Config) { c.IdentityPoolID = "00000000-1111-2222-3333-444444444444" }, "IdentityPoolID"},
		{"a user pool for an identity pool", func(c *Config) { c.IdentityPoolID = users }, "IdentityPoolID"},
		{"an identity pool of no Region", func(c *Config) { c.IdentityPoolID = "europe:00000000" }, "Region"},
		{"a Region that is a host", func(c *Config) { c.Region = "evil.example.com/" }, "Region"},
		{"another Region", func(c *Config) { c.Region = "us-gov-west-1" }, ""},
		{"no user pool", func(c *Config) { c.UserPoolID = "" }, "UserPoolID"},
		{"an identity pool for a user pool", func(c *Config) { c.UserPoolID = pool }, "UserPoolID"},
		{"a user pool of no Region", func(c *Config) { c.UserPoolID = "europe_AbCdEfGhI" }, "UserPoolID"},
		{"a user pool of an unknown partition", func(c *Config) { c.UserPoolID = "eusc-de-east-1_AbCdEfGhI" }, "LoginProvider"},
		{"a login provider for it", func(c *Config) {
			c.UserPoolID, c.LoginProvider = "", "cognito-idp.eusc-de-east-1.amazonaws.eu/eusc-de-east-1_AbCdEfGhI"
		}, ""},
		{"a login provider of the same user pool", func(c *Config) { c.LoginProvider = logins }, ""},
		{"a login provider of another user pool", func(c *Config) { c.LoginProvider = logins + "J" }, "LoginProvider"},
		{"a login provider that is a URL", func(c *Config) { c.UserPoolID, c.LoginProvider = "", "https://"+logins }, "LoginProvider"},
		{"no ID token", func(c *Config) { c.IDToken = nil }, "IDToken"},
		{"a role suffix", func(c *Config) { c.RoleSuffix = "Analyst" }, ""},
		{"a role", func(c *Config) { c.RoleARN = analyst }, ""},
		{"a role with a path, of another partition", func(c *Config) { c.RoleARN = "arn:aws-cn:iam::123456789012:role/a/b/c" }, ""},
		{"a role and a suffix", func(c *Config) { c.RoleARN, c.RoleSuffix = analyst, "Analyst" }, "RoleSuffix and RoleARN"},
		{"the name of a role", func(c *Config) { c.RoleARN = "Analyst" }, "RoleARN"},
		{"a user for a role", func(c *Config) { c.RoleARN = "arn:aws:iam::123456789012:user/jane" }, "RoleARN"},
		{"an account", func(c *Config) { c.AccountID = "123456789012" }, ""},
		{"an account with dashes", func(c *Config) { c.AccountID = "1234-5678-9012" }, "AccountID"},
		{"no early expiry", func(c *Config) { c.EarlyExpiry = -1 }, ""},
		{"a negative timeout", func(c *Config) { c.Timeout = -time.Second }, "Timeout"},
		{"an endpoint", func(c *Config) { c.Endpoint = "https://cognito-identity.example.com" }, ""},
		{"an endpoint on this machine", func(c *Config) { c.Endpoint = "http://127.0.0.1:5000" }, ""},
		{"an endpoint on this machine, by IPv6", func(c *Config) { c.Endpoint = "http://[::1]:5000" }, ""},
		{"an endpoint on this machine, by name", func(c *Config) { c.Endpoint = "http://localhost:5000/" }, ""},
		{"an endpoint with a query", func(c *Config) { c.Endpoint = "https://example.com/?a=CANARY" }, "Endpoint"},
		{"an endpoint with a fragment", func(c *Config) { c.Endpoint = "https://example.com/#CANARY" }, "Endpoint"},
		{"an endpoint that is no URL", func(c *Config) { c.Endpoint = "https://example.com/%zz" }, "Endpoint"},
		{"an endpoint of another protocol", func(c *Config) { c.Endpoint = "ftp://127.0.0.1" }, "Endpoint"},
		{"an endpoint with nothing but a scheme", func(c *Config) { c.Endpoint = "https://" }, "Endpoint"},
		{"an endpoint without TLS", func(c *Config) { c.Endpoint = "http://cognito-identity.example.com" }, "Endpoint"},
		{"an endpoint whose name begins as this machine's", func(c *Config) { c.Endpoint = "http://127.0.0.1.example.com" }, "Endpoint"},
		{"an endpoint with a password", func(c *Config) { c.Endpoint = "https://u:CANARY@example.com" }, "Endpoint"},
		{"an endpoint without a host", func(c *Config) { c.Endpoint = "localhost:5000" }, "Endpoint"},
		{"a folder", func(c *Config) { c.CacheDir = filepath.Join(t.TempDir(), "cache") }, ""},
		{"a folder that depends on where we are", func(c *Config) { c.CacheDir = "cache" }, "CacheDir"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			cfg := Config{IdentityPoolID: pool, UserPoolID: users, IDToken: always(token())}
			tc.edit(&cfg)
			p, err := New(cfg)
			switch {
			case tc.want == "" && (err != nil || p == nil):
				t.Errorf("got %v, want it accepted", err)
			case tc.want != "" && (err == nil || p != nil || !strings.HasPrefix(err.Error(), "identity: "+tc.want)):
				t.Errorf("got %v, want it to begin with %q", err, "identity: "+tc.want)
			case err != nil && strings.Contains(err.Error(), "CANARY"):
				t.Errorf("got %v, want no password in it", err)
			}
		})
	}
}

func TestLoginProvider(t *testing.T) {
	for id, want := range map[string]string{
		"eu-west-1_AbCdEfGhI":     "cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI",
		"us-gov-west-1_AbCdEfGhI": "cognito-idp.us-gov-west-1.amazonaws.com/us-gov-west-1_AbCdEfGhI",
		"cn-north-1_AbCdEfGhI":    "cognito-idp.cn-north-1.amazonaws.com.cn/cn-north-1_AbCdEfGhI",
		"us-iso-east-1_AbCdEfGhI": "",
		"eusc-de-east-1_AbCdEfG":  "",
		"eu-west-1":               "",
		"europe_AbCdEfGhI":        "",
		"_AbCdEfGhI":              "",
		"":                        "",
	} {
		got, err := LoginProvider(id)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", id, got, err, want)
		}
	}
}

// The two calls go to the Region's endpoint of the identity pool, with what the API wants, and unsigned.
func TestRequests(t *testing.T) {
	jwt := token()
	tests := []struct {
		name        string
		edit        func(*Config)
		host        string
		id          map[string]any // GetId
		credentials map[string]any // GetCredentialsForIdentity
	}{
		{
			"the defaults",
			func(*Config) {},
			"cognito-identity.eu-west-1.amazonaws.com",
			map[string]any{"IdentityPoolId": pool, "Logins": map[string]any{logins: jwt}},
			map[string]any{"IdentityId": jane, "Logins": map[string]any{logins: jwt}},
		},
		{
			"a role by its end, an account",
			func(c *Config) { c.RoleSuffix, c.AccountID = "/Admin", "999999999999" },
			"cognito-identity.eu-west-1.amazonaws.com",
			map[string]any{"IdentityPoolId": pool, "AccountId": "999999999999", "Logins": map[string]any{logins: jwt}},
			map[string]any{"IdentityId": jane, "CustomRoleArn": admin, "Logins": map[string]any{logins: jwt}},
		},
		{
			"a role by its name, a Region",
			func(c *Config) { c.RoleARN, c.Region = analyst, "us-gov-west-1" },
			"cognito-identity.us-gov-west-1.amazonaws.com",
			map[string]any{"IdentityPoolId": pool, "Logins": map[string]any{logins: jwt}},
			map[string]any{"IdentityId": jane, "CustomRoleArn": analyst, "Logins": map[string]any{logins: jwt}},
		},
		{
			"the partition of China",
			func(c *Config) { c.IdentityPoolID, c.UserPoolID = "cn-north-1:00000000", "cn-north-1_AbCdEfGhI" },
			"cognito-identity.cn-north-1.amazonaws.com.cn",
			map[string]any{"IdentityPoolId": "cn-north-1:00000000", "Logins": map[string]any{"cognito-idp.cn-north-1.amazonaws.com.cn/cn-north-1_AbCdEfGhI": jwt}},
			map[string]any{"IdentityId": jane, "Logins": map[string]any{"cognito-idp.cn-north-1.amazonaws.com.cn/cn-north-1_AbCdEfGhI": jwt}},
		},
		{
			"an endpoint and a login provider",
			func(c *Config) {
				c.Endpoint, c.UserPoolID, c.LoginProvider = "https://vpce.example.com", "", "login.example.com"
			},
			"vpce.example.com",
			map[string]any{"IdentityPoolId": pool, "Logins": map[string]any{"login.example.com": jwt}},
			map[string]any{"IdentityId": jane, "Logins": map[string]any{"login.example.com": jwt}},
		},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			p, s := newProvider(t, tc.edit)
			key(t, p)
			if len(s.requests) != 2 {
				t.Fatalf("got %d requests, want 2", len(s.requests))
			}
			for i, want := range []request{{"GetId", tc.host, nil, tc.id}, {"GetCredentialsForIdentity", tc.host, nil, tc.credentials}} {
				got := s.requests[i]
				if got.Header.Get("Authorization") != "" || got.Header.Get("X-Amz-Security-Token") != "" {
					t.Errorf("%s is signed: %v", got.Operation, got.Header)
				}
				got.Header = nil
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("request (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// Nothing of the machine's AWS configuration is looked at: each of these would break the calls, sign them, or lead them
// elsewhere.
func TestTheMachinesAWSConfigurationIsNotUsed(t *testing.T) {
	folder := t.TempDir()
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIAMACHINE", "AWS_SECRET_ACCESS_KEY": "machine", "AWS_SESSION_TOKEN": "machine",
		"AWS_REGION": "us-west-2", "AWS_DEFAULT_REGION": "us-west-2", "AWS_PROFILE": "nobody",
		"AWS_CONFIG_FILE": folder, "AWS_SHARED_CREDENTIALS_FILE": folder, // a folder cannot be read as a file
		"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_COGNITO_IDENTITY": "http://127.0.0.1:1",
		"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1",
		"AWS_WEB_IDENTITY_TOKEN_FILE": folder, "AWS_ROLE_ARN": admin,
		"AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true", "AWS_MAX_ATTEMPTS": "1", "AWS_CA_BUNDLE": folder,
	} {
		t.Setenv(name, value)
	}
	var s *service
	synctest.Test(t, func(t *testing.T) { // whose clock makes the pause between two attempts short
		var p *Provider
		p, s = newProvider(t)
		s.next("GetId", failure(500, "InternalErrorException", ""))
		if got := key(t, p); got != "ASIA1" {
			t.Errorf("access key is %s, want ASIA1", got)
		}
	})
	for _, r := range s.requests {
		if r.Host != "cognito-identity.eu-west-1.amazonaws.com" || r.Header.Get("Authorization") != "" {
			t.Errorf("%s went to %s with Authorization %q, want it unsigned and to the identity pool's Region", r.Operation, r.Host, r.Header.Get("Authorization"))
		}
		for name, values := range r.Header {
			if strings.Contains(strings.Join(values, " "), "AKIAMACHINE") {
				t.Errorf("%s has the machine's access key", name)
			}
		}
	}
}

func TestCredentialsSayWhoseTheyAre(t *testing.T) {
	end := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	now := end.Add(-time.Hour)
	tests := []struct {
		name string
		edit func(*Config)
		want Credentials
	}{
		{"Cognito chooses the role", func(*Config) {}, Credentials{}},
		{"the role was chosen", func(c *Config) { c.RoleSuffix = "/Admin" }, Credentials{RoleARN: admin, AccountID: "123456789012"}},
		{"the account is known", func(c *Config) { c.AccountID = "999999999999" }, Credentials{AccountID: "999999999999"}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			p, s := newProvider(t, tc.edit, func(c *Config) { c.Now = func() time.Time { return now } })
			s.now = func() time.Time { return now }
			want := NewCredentials("ASIA1", "CANARY secret 1", "CANARY session 1", end)
			want.IdentityID, want.RoleARN, want.AccountID = jane, tc.want.RoleARN, tc.want.AccountID
			got, err := p.Credentials(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(fields(want), fields(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			forSDK, err := p.Retrieve(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(aws.Credentials{
				AccessKeyID: "ASIA1", SecretAccessKey: "CANARY secret 1", SessionToken: "CANARY session 1", AccountID: tc.want.AccountID,
				Source: "CognitoIdentityPool", CanExpire: true, Expires: end.Add(-5 * time.Minute),
			}, forSDK); diff != "" {
				t.Errorf("for the SDK (-want +got):\n%s", diff)
			}
		})
	}
}

func TestZeroCredentials(t *testing.T) {
	var c Credentials
	if c.SecretAccessKey() != "" || c.SessionToken() != "" {
		t.Errorf("got %q, want nothing", fields(c))
	}
}

// fields are all that is hidden when credentials are printed.
func fields(c Credentials) []string {
	return []string{c.AccessKeyID, c.SecretAccessKey(), c.SessionToken(), c.Expires.String(), c.IdentityID, c.RoleARN, c.AccountID}
}

// An identity that was merged into another one: the answer says of which it is.
func TestTheAnswersIdentityCounts(t *testing.T) {
	p, s := newProvider(t)
	s.next("GetCredentialsForIdentity", answer{status: 200, body: credentials(7, "eu-west-1:merged", time.Now().Add(time.Hour))})
	c, err := p.Credentials(t.Context())
	if err != nil || c.IdentityID != "eu-west-1:merged" {
		t.Errorf("got %q, %v, want the identity of the answer", c.IdentityID, err)
	}
}

var _ http.RoundTripper = (*service)(nil)
