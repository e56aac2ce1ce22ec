package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/cognito-extauthz/extauthz/pkg/cognito/identity"
	"github.com/cognito-extauthz/extauthz/pkg/cognito/login"
)

// A session of package login is where ID tokens come from.
var _ = identity.Config{IDToken: (*login.Session)(nil).IDToken}

// What moto gives to everybody, for 90 seconds.
const motoKey, motoSession, motoAccount = "TESTACCESSKEY12345", "ABC12345", "123456789012"

// A cloud is moto, with a user pool, somebody who has signed in there, and an identity pool.
type cloud struct {
	addr, userPool, identityPool, idToken string
	calls                                 calls
}

// calls counts, and notes who has signed.
type calls struct {
	mu     sync.Mutex
	counts map[string]int
	signed []string
}

// RoundTrip counts a call of the Cognito Identity API by its name, and notes the signature of others.
func (c *calls) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	if _, call, ok := strings.Cut(r.Header.Get("X-Amz-Target"), "."); ok {
		c.counts[call]++
	} else {
		c.signed = append(c.signed, r.Header.Get("Authorization")+" "+r.Header.Get("X-Amz-Security-Token"))
	}
	c.mu.Unlock()
	return http.DefaultTransport.RoundTrip(r)
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	folder, addr := installed(t), freeAddr(t)
	host, port, _ := net.SplitHostPort(addr)
	serve(t, addr, program(t, folder, "python3", "-m", "moto.server", "-H", host, "-p", port))
	c := &cloud{addr: addr, calls: calls{counts: make(map[string]int)}}
	c.userPool, _, _, c.idToken = signIn(t, addr)

	text, err := json.Marshal(obj{
		"IdentityPoolName": "interop", "AllowUnauthenticatedIdentities": false,
		"CognitoIdentityProviders": []obj{{"ProviderName": "cognito-idp.eu-west-1.amazonaws.com/" + c.userPool, "ClientId": "interop"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/", bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "AWSCognitoIdentityService.CreateIdentityPool")
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/eu-west-1/cognito-identity/aws4_request, SignedHeaders=host, Signature=0")
	var made struct{ IdentityPoolId string } //nolint:revive // Amazon's name
	post(t, req, &made)
	c.identityPool = made.IdentityPoolId
	return c
}

func (c *cloud) config() identity.Config {
	return identity.Config{
		IdentityPoolID: c.identityPool, UserPoolID: c.userPool, Endpoint: "http://" + c.addr,
		IDToken:    func(context.Context) (string, error) { return c.idToken, nil },
		HTTPClient: &http.Client{Transport: &c.calls},
	}
}

// whoami asks STS, with a request that is signed with the provider's credentials.
func (c *cloud) whoami(t *testing.T, provider aws.CredentialsProvider) {
	t.Helper()
	client := sts.NewFromConfig(aws.Config{
		Region: "eu-west-1", Credentials: provider, BaseEndpoint: aws.String("http://" + c.addr), HTTPClient: &http.Client{Transport: &c.calls},
	})
	c.calls.signed = nil
	who, err := client.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	if aws.ToString(who.Account) != motoAccount {
		t.Errorf("account is %s, want %s", aws.ToString(who.Account), motoAccount)
	}
	if len(c.calls.signed) != 1 || !strings.Contains(c.calls.signed[0], "Credential="+motoKey+"/") || !strings.HasSuffix(c.calls.signed[0], " "+motoSession) {
		t.Errorf("requests were signed %q, want one, with the credentials of the identity pool", c.calls.signed)
	}
}

// The whole walk: a user signs in at a user pool, the ID token is exchanged at an identity pool, and a request to AWS is
// signed with what comes of it. moto's credentials live for less than the five minutes by which ours are replaced early: they
// are used all the same, and not fetched for every request.
func TestIdentityPool(t *testing.T) {
	c := newCloud(t)
	p, err := identity.New(c.config())
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		c.whoami(t, p)
	}
	c.whoami(t, aws.NewCredentialsCache(p))
	if got := c.calls.counts; got["GetId"] != 1 || got["GetCredentialsForIdentity"] != 1 {
		t.Errorf("calls are %v, want one of each", got)
	}

	got, err := p.Credentials(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(got.Expires); left < 30*time.Second || left > 90*time.Second {
		t.Errorf("they expire in %v, want at most the 90s of moto", left)
	}
	if region, _, ok := strings.Cut(got.IdentityID, ":"); !ok || region == "" {
		t.Errorf("identity is %q, want REGION:GUID", got.IdentityID)
	}
	before := got.IdentityID
	if got, err = p.Renew(t.Context()); err != nil || got.IdentityID != before {
		t.Errorf("got %v, %v, want new credentials of the same identity", got, err)
	}
	if got := c.calls.counts; got["GetId"] != 1 || got["GetCredentialsForIdentity"] != 2 {
		t.Errorf("calls are %v, want another one for credentials", got)
	}

	// moto's tokens have no roles in them.
	cfg := c.config()
	cfg.RoleSuffix = "Analyst"
	p, err = identity.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var none *identity.RoleError
	if _, err := p.Credentials(t.Context()); !errors.As(err, &none) {
		t.Errorf("got %v, want a *RoleError", err)
	}
}

// A credential_process is what TestCredentialProcess makes of this binary, if its environment says for whom.
const forWhom = "EXTAUTHZ_INTEROP_CREDENTIAL_PROCESS"

// process returns the environment and the command of a credential_process.
func (c *cloud) process(t *testing.T, folder string) (env []string, command string) {
	t.Helper()
	text, err := json.Marshal([]string{c.identityPool, c.userPool, "http://" + c.addr, c.idToken, folder})
	if err != nil {
		t.Fatal(err)
	}
	return []string{forWhom + "=" + string(text), "PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, os.Args[0] + " -test.run=^TestCredentialProcess$"
}

// asProcess is what the credential_process does.
func asProcess(text string) error {
	var arg [5]string
	if err := json.Unmarshal([]byte(text), &arg); err != nil {
		return err
	}
	p, err := identity.New(identity.Config{
		IdentityPoolID: arg[0], UserPoolID: arg[1], Endpoint: arg[2], CacheDir: arg[4],
		IDToken: func(context.Context) (string, error) { return arg[3], nil },
	})
	if err != nil {
		return err
	}
	credentials, err := p.Credentials(context.Background())
	if err != nil {
		return err
	}
	return identity.WriteProcess(os.Stdout, credentials)
}

// What a credential_process of ours writes is taken by aws-sdk-go-v2 and by botocore, which is what the AWS CLI is made of,
// and requests that they sign with it reach AWS. All commands in a minute cost one call of each kind, as they share a folder.
func TestCredentialProcess(t *testing.T) {
	if text := os.Getenv(forWhom); text != "" {
		if err := asProcess(text); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0) // before the testing package prints anything
	}
	c := newCloud(t)
	env, command := c.process(t, filepath.Join(t.TempDir(), "credentials"))

	provider := processcreds.NewProviderCommand(processcreds.NewCommandBuilderFunc(func(ctx context.Context) (*exec.Cmd, error) {
		cmd := exec.CommandContext(ctx, "sh", "-c", command)
		cmd.Env, cmd.Stderr = env, os.Stderr
		return cmd, nil
	}))
	first, err := provider.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if first.AccessKeyID != motoKey || first.SessionToken != motoSession || !first.CanExpire || first.Expired() {
		t.Errorf("got credentials of %s until %v, want moto's, which expire", first.AccessKeyID, first.Expires)
	}
	c.whoami(t, provider)

	settings := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(settings, []byte("[profile people]\nregion = eu-west-1\ncredential_process = "+command+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := program(t, installed(t), "python3", "botocore-sts.py", "http://"+c.addr)
	cmd.Env = append(cmd.Env, env...)
	cmd.Env = append(cmd.Env, "AWS_CONFIG_FILE="+settings, "AWS_SHARED_CREDENTIALS_FILE="+settings+".none", "AWS_PROFILE=people", "AWS_EC2_METADATA_DISABLED=true")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("botocore: %v: %s", err, said.String())
	}
	var got struct {
		Account, AccessKey, SessionToken, Method string
		Expires                                  time.Time
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("botocore printed %q: %v", out, err)
	}
	if got.Account != motoAccount || got.AccessKey != motoKey || got.SessionToken != motoSession || got.Method != "custom-process" {
		t.Errorf("botocore has %+v, want moto's account, reached with what the process wrote", got)
	}
	if !got.Expires.Equal(first.Expires) {
		t.Errorf("botocore's credentials expire at %v, want %v, as those of the first process", got.Expires, first.Expires)
	}
}
