package identity

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/google/go-cmp/cmp"
)

var end = time.Date(2030, 1, 2, 3, 4, 5, 999_999_999, time.FixedZone("CET", 3600))

func complete() Credentials {
	c := NewCredentials("ASIA1", "secret/+<&", "session", end)
	c.IdentityID, c.RoleARN, c.AccountID = jane, analyst, "123456789012"
	return c
}

// writes counts the calls of Write.
type writes struct {
	text  string
	calls int
	err   error
}

func (w *writes) Write(p []byte) (int, error) {
	w.text += string(p)
	w.calls++
	return len(p), w.err
}

func TestWriteProcess(t *testing.T) {
	var got writes
	if err := WriteProcess(&got, complete()); err != nil {
		t.Fatal(err)
	}
	want := `{"Version":1,"AccessKeyId":"ASIA1","SecretAccessKey":"secret/+\u003c\u0026","SessionToken":"session","Expiration":"2030-01-02T02:04:05Z","AccountId":"123456789012"}` + "\n"
	if diff := cmp.Diff(want, got.text); diff != "" || got.calls != 1 {
		t.Errorf("%d writes, want 1 (-want +got):\n%s", got.calls, diff)
	}
	full := errors.New("disk full")
	if err := WriteProcess(&writes{err: full}, complete()); !errors.Is(err, full) {
		t.Errorf("got %v, want the writer's error", err)
	}
}

func TestWriteProcessWritesWholeCredentialsOnly(t *testing.T) {
	for name, c := range map[string]Credentials{
		"none":             {},
		"no access key":    NewCredentials("", "secret", "session", end),
		"no secret":        NewCredentials("ASIA1", "", "session", end),
		"no session token": NewCredentials("ASIA1", "secret", "", end),
		"no end":           NewCredentials("ASIA1", "secret", "session", time.Time{}),
	} {
		var got writes
		if err := WriteProcess(&got, c); err == nil || got.calls != 0 {
			t.Errorf("%s: got %v after %d writes, want an error and nothing written", name, err, got.calls)
		}
	}
}

// The SDK runs a command, which is this test's binary, and has the same credentials that came from the service; the next
// command takes them from the cache.
func TestSDKTakesTheProcessOutput(t *testing.T) {
	s := newService()
	server := httptest.NewServer(s)
	defer server.Close()
	folder := t.TempDir()
	command := processcreds.NewCommandBuilderFunc(func(ctx context.Context) (*exec.Cmd, error) {
		cmd := exec.CommandContext(ctx, os.Args[0], server.URL, folder)
		cmd.Env = []string{asProcess + "=1", "HOME=" + t.TempDir()}
		cmd.Stderr = os.Stderr
		return cmd, nil
	})
	for range 3 {
		c, err := processcreds.NewProviderCommand(command).Retrieve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(c.Expires); left < 59*time.Minute || left > time.Hour {
			t.Errorf("Expires is in %v, want the end of the credentials, in an hour", left)
		}
		c.Expires = time.Time{}
		if diff := cmp.Diff(aws.Credentials{
			AccessKeyID: "ASIA1", SecretAccessKey: "CANARY secret 1", SessionToken: "CANARY session 1", Source: "ProcessProvider", CanExpire: true,
		}, c); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if got := s.count(); got != [2]int{1, 1} {
		t.Errorf("three commands: called %v times, want once each", got)
	}
}
