package login

import (
	"context"
	"sync"
)

// A Store keeps the tokens of one sign-in. All its methods may be called from several goroutines at once.
type Store interface {
	// Load returns [ErrNoTokens] if there are none.
	Load(ctx context.Context) (*Tokens, error)
	// Save replaces the tokens, as a whole or not at all.
	Save(ctx context.Context, t *Tokens) error
	// Delete deletes the tokens, if there are any.
	Delete(ctx context.Context) error
	// Lock waits until nobody else who keeps the same tokens has the lock, in this process or in another, and returns what
	// gives it back. A [Session] has it while it refreshes, from reading the tokens to saving the new ones.
	Lock(ctx context.Context) (unlock func(), err error)
}

// memoryStore is a Store for the life of the process.
type memoryStore struct {
	lock chan struct{} // holds an item while it is locked

	mu     sync.Mutex
	tokens *Tokens
}

func newMemoryStore() *memoryStore { return &memoryStore{lock: make(chan struct{}, 1)} }

func (s *memoryStore) Load(context.Context) (*Tokens, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tokens == nil {
		return nil, ErrNoTokens
	}
	return s.tokens, nil
}

func (s *memoryStore) Save(_ context.Context, t *Tokens) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = t
	return nil
}

func (s *memoryStore) Delete(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = nil
	return nil
}

func (s *memoryStore) Lock(ctx context.Context) (unlock func(), err error) {
	select {
	case s.lock <- struct{}{}:
		return func() { <-s.lock }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
