package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// WriteProcess writes credentials as the AWS CLI and SDKs expect them from a credential_process: one line of JSON, in one
// write, so that a reader sees all of it or nothing. They hold the credentials until Expiration and then run the command
// again. Its output is secret and belongs on a pipe.
//
// Source: AWS SDKs and Tools Reference Guide, "Process credential provider".
func WriteProcess(w io.Writer, c Credentials) error {
	if c.AccessKeyID == "" || c.SecretAccessKey() == "" || c.SessionToken() == "" || c.Expires.IsZero() {
		return errors.New("identity: credentials are incomplete, want both keys, a session token and an expiry")
	}
	out, _ := json.Marshal(struct { //nolint:errchkjson,gosec // it cannot fail, and this is what the AWS CLI asks for
		Version         int
		AccessKeyID     string `json:"AccessKeyId"`
		SecretAccessKey string
		SessionToken    string
		Expiration      string // RFC 3339 is what all SDKs read of ISO 8601
		AccountID       string `json:"AccountId,omitempty"`
	}{1, c.AccessKeyID, c.SecretAccessKey(), c.SessionToken(), c.Expires.UTC().Format(time.RFC3339), c.AccountID})
	if _, err := w.Write(append(out, '\n')); err != nil {
		return fmt.Errorf("identity: write credentials: %w", err)
	}
	return nil
}
