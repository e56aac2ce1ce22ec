package tokenfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/cognito-extauthz/extauthz/pkg/cognito"
)

// An entry is what a file holds.
type entry struct {
	Version     int       `json:"version"`
	Key         string    `json:"key"` // that of the file's name: a file that was renamed or copied is not believed
	AccessToken string    `json:"access_token"`
	TokenType   string    `json:"token_type"`
	ObtainedAt  time.Time `json:"obtained_at"`
	Expiry      time.Time `json:"expiry"`
	Scopes      []string  `json:"scopes,omitempty"`
}

// version is that of the files' form. Another is not understood.
const version = 1

// maxFileBytes bounds a file: a token has at most 16 KiB.
const maxFileBytes = 64 << 10

func encode(t *cognito.Token, key string) ([]byte, error) {
	text, err := json.Marshal(entry{version, key, t.AccessToken(), t.TokenType, t.ObtainedAt, t.Expiry, t.Scopes}) // #nosec G117 -- that is what the file is for
	if err != nil {
		return nil, errors.New("the token's times cannot be written") // those of the year 10000
	}
	return append(text, '\n'), nil
}

// decode reads the file of a key. The errors hold nothing of it.
func decode(text []byte, key string) (*cognito.Token, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var e entry
	if err := dec.Decode(&e); err != nil {
		return nil, errors.New("it is none of this cache's files, or damaged")
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("it has something behind the token")
	}
	switch {
	case e.Version != version:
		return nil, fmt.Errorf("its version is %d, want %d", e.Version, version)
	case e.Key != key:
		return nil, errors.New("it is for another key than its name says")
	case e.AccessToken == "" || !strings.EqualFold(e.TokenType, "Bearer"):
		return nil, errors.New("it has no bearer token")
	case !e.Expiry.After(e.ObtainedAt):
		return nil, errors.New("its token ends before it was obtained")
	}
	t := cognito.NewToken(e.AccessToken, e.ObtainedAt, e.Expiry)
	t.Scopes = e.Scopes
	return t, nil
}
