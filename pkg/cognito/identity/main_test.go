package identity

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// As a process of its own, the test binary is a credential_process: its arguments are the endpoint and the cache's folder.
const asProcess = "IDENTITY_TEST_PROCESS"

func TestMain(m *testing.M) {
	if os.Getenv(asProcess) != "" {
		if err := process(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func process(endpoint, folder string) error {
	p, err := New(Config{IdentityPoolID: pool, UserPoolID: users, IDToken: always(token()), Endpoint: endpoint, CacheDir: folder})
	if err != nil {
		return err
	}
	c, err := p.Credentials(context.Background())
	if err != nil {
		return err
	}
	return WriteProcess(os.Stdout, c)
}
