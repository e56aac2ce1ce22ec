package login

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/cognito-extauthz/extauthz/pkg/cognito/internal/privatefile"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// A FileStore is a [Store] in one file, of mode 0600, in a folder that nobody else may write to. The file is replaced as a
// whole; the lock is a file beside it. A file that others may read or write, that belongs to somebody else, that is a
// symbolic link, or whose content is not what Save writes, is not used: the error says what to do, and so may be hidden from
// no one. On Windows the access rules of the folder are what protects it.
type FileStore struct{ path string }

// NewFileStore returns the store in the file path. The file need not exist, nor its folder, which is made with mode 0700.
func NewFileStore(path string) (*FileStore, error) {
	abs, err := filepath.Abs(path)
	if err != nil || path == "" {
		return nil, fmt.Errorf("login: token file is %q, want a path", path)
	}
	return &FileStore{path: abs}, nil
}

// Path returns the file.
func (s *FileStore) Path() string { return s.path }

// maxStoreBytes is more than three tokens as long as they may be, be every byte of the refresh token escaped.
const maxStoreBytes = 10 * validator.MaxTokenBytes

// storedTokens are the content of the file. Expiries are those that the tokens have.
type storedTokens struct {
	Version      int       `json:"version"`
	IDToken      string    `json:"id_token"`
	AccessToken  string    `json:"access_token"`
	RefreshToken string    `json:"refresh_token"`
	ObtainedAt   time.Time `json:"obtained_at"`
}

const storeVersion = 1

// Load implements [Store].
func (s *FileStore) Load(context.Context) (*Tokens, error) {
	content, err := privatefile.Read(s.path, maxStoreBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoTokens
	}
	if err != nil {
		return nil, fmt.Errorf("login: read the tokens: %w", err)
	}
	tokens, err := decodeStored(content)
	if err != nil {
		return nil, fmt.Errorf("login: read the tokens: %s %w\nhint: log in again, which replaces it", s.path, err)
	}
	return tokens, nil
}

// decodeStored takes what Save has written and nothing else. Its errors hold nothing of it.
func decodeStored(content []byte) (*Tokens, error) {
	var stored storedTokens
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&stored); err != nil {
		return nil, errors.New("is damaged, or not a file of tokens")
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("is damaged: something stands behind the tokens")
	}
	if stored.Version != storeVersion {
		return nil, fmt.Errorf("has version %d, want %d", stored.Version, storeVersion)
	}
	t := &Tokens{
		IDToken: stored.IDToken, AccessToken: stored.AccessToken, RefreshToken: stored.RefreshToken, ObtainedAt: stored.ObtainedAt,
	}
	if t.IDTokenExpiry = expiryOf(t.IDToken); t.IDTokenExpiry.IsZero() {
		return nil, errors.New("is damaged: the ID token is none")
	}
	if t.AccessTokenExpiry = expiryOf(t.AccessToken); t.AccessTokenExpiry.IsZero() {
		return nil, errors.New("is damaged: the access token is none")
	}
	return t, nil
}

// expiryOf returns the exp of a JWT, the zero time if it has none.
func expiryOf(token string) time.Time {
	payload, err := decodePayload(token)
	if err != nil {
		return time.Time{}
	}
	return date(payload["exp"])
}

// Save implements [Store].
func (s *FileStore) Save(_ context.Context, t *Tokens) error {
	stored := storedTokens{storeVersion, t.IDToken, t.AccessToken, t.RefreshToken, t.ObtainedAt}
	content, err := json.Marshal(stored) // #nosec G117 -- for the file that keeps them
	if err != nil {
		return fmt.Errorf("login: save the tokens: %w", err)
	}
	if err := privatefile.Write(s.path, append(content, '\n')); err != nil {
		return fmt.Errorf("login: save the tokens: %w", err)
	}
	return nil
}

// Delete implements [Store]. The lock file stays, as somebody may wait for it.
func (s *FileStore) Delete(context.Context) error {
	if err := privatefile.Remove(s.path); err != nil {
		return fmt.Errorf("login: delete the tokens: %w", err)
	}
	return nil
}

// Lock implements [Store].
func (s *FileStore) Lock(ctx context.Context) (unlock func(), err error) {
	if unlock, err = privatefile.Lock(ctx, s.path); err != nil {
		return nil, fmt.Errorf("login: %w", err)
	}
	return unlock, nil
}
