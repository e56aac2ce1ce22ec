package identity

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"
)

// patience bounds a refresh while the credentials at hand still serve, and so for how long one caller is held up by a slow
// service. Both calls together take well under a second when all is well.
const patience = 5 * time.Second

// pause is how long after a failed refresh, while the credentials at hand still serve, the next one begins: ten attempts in
// the default EarlyExpiry.
const pause = 30 * time.Second

// usable is how much of their life credentials that are given out have left.
const usable = 5 * time.Second

// clockBack is how far before the moment when credentials came the clock may stand. If it was set back further, nothing is
// known about how long they hold.
const clockBack = time.Minute

// held are credentials that are kept. They do not change.
type held struct {
	Credentials
	user     user
	obtained time.Time // by the wall clock, as Expires
}

// A user is whose credentials they are: a sub is unique in its user pool. An identity pool may have other rules for each app
// client.
type user struct{ issuer, subject, client string }

// freshUntil is when they are to be replaced: early before their end, but not before half of their life, so that those with
// a short life are used at all.
func (h *held) freshUntil(early time.Duration) time.Time {
	return h.Expires.Add(-min(early, h.life()/2))
}

// end is when they are no longer given out: a request that is signed with them has to arrive.
func (h *held) end() time.Time { return h.Expires.Add(-min(usable, h.life()/10)) }

func (h *held) life() time.Duration { return max(h.Expires.Sub(h.obtained), 0) }

// fresh reports whether there are credentials that need not be replaced yet.
func (h *held) fresh(p *Provider) bool {
	return h.serves(p) && p.cfg.Now().Before(h.freshUntil(p.cfg.EarlyExpiry))
}

// serves reports whether there are credentials that can be given out.
func (h *held) serves(p *Provider) bool {
	if h == nil {
		return false
	}
	now := p.cfg.Now()
	return now.Before(h.end()) && h.obtained.Before(now.Add(clockBack))
}

// A flight is a refresh under way. What it came to may be read once done is closed: got, or err, or with err what still
// serves.
type flight struct {
	fly  func(*held) // with what is kept when it begins
	anew bool        // whatever that is
	done chan struct{}
	got  *held
	err  error
}

// get returns credentials, and when to ask again.
func (p *Provider) get(ctx context.Context) (Credentials, time.Time, error) {
	p.mu.Lock()
	if h := p.held; h.fresh(p) {
		p.mu.Unlock()
		return h.Credentials, h.freshUntil(p.cfg.EarlyExpiry), nil
	}
	// Others are served while one waits for the refresh, and all are until it is tried again.
	if p.held.serves(p) && (p.flight != nil || p.cfg.Now().Before(p.retryAt)) {
		defer p.mu.Unlock()
		return p.held.Credentials, p.askAgain(), nil
	}
	f := p.flight
	if f == nil {
		f = p.takeOff(p.plan(false))
	}
	p.mu.Unlock()

	err := f.wait(ctx)
	if err == nil {
		return f.got.Credentials, f.got.freshUntil(p.cfg.EarlyExpiry), nil
	}
	if mayPass(err) {
		if c, until, ok := p.atHand(); ok {
			return c, until, nil
		}
	}
	return Credentials{}, time.Time{}, err
}

// renew fetches credentials whatever is kept. A refresh under way may take what another process has kept, so that it is not
// joined, but followed by another one.
func (p *Provider) renew(ctx context.Context) (Credentials, error) {
	p.mu.Lock()
	f := p.flight
	switch {
	case f == nil:
		f = p.takeOff(p.plan(true))
	case !f.anew:
		if p.next == nil {
			p.next = p.plan(true)
		}
		f = p.next
	}
	p.mu.Unlock()
	if err := f.wait(ctx); err != nil {
		return Credentials{}, err
	}
	return f.got.Credentials, nil
}

// wait returns when the flight has ended, or ctx.
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return passing{fmt.Errorf("identity: %w", ctx.Err())}
	}
}

// atHand returns what is kept, if it serves.
func (p *Provider) atHand() (Credentials, time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.held.serves(p) {
		return Credentials{}, time.Time{}, false
	}
	return p.held.Credentials, p.askAgain(), true
}

// askAgain is when those should come again who are served what is fresh no more. The caller holds mu.
func (p *Provider) askAgain() time.Time {
	now := p.cfg.Now()
	return now.Add(min(max(p.retryAt.Sub(now), 0), p.held.end().Sub(now)))
}

// plan returns a refresh that takeOff can begin. Its context is that of no caller, as others may come to wait for it, and what
// one caller's context carries, such as who has sent a request, is not for the others.
func (p *Provider) plan(anew bool) *flight {
	f := &flight{anew: anew, done: make(chan struct{}), err: errors.New("identity: IDToken has ended its goroutine")} // by runtime.Goexit
	f.fly = func(before *held) {
		limit := p.cfg.Timeout
		if before.serves(p) && !anew {
			limit = min(limit, patience)
		}
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		defer p.land(f)
		defer func() {
			// What comes from outside is parsed here, in a goroutine of our own: a panic would end the process.
			if r := recover(); r != nil {
				f.got, f.err = nil, passing{fmt.Errorf("identity: panic: %s", panicText(r))}
			}
		}()
		f.got, f.err = p.refresh(ctx, before, anew)
	}
	return f
}

// takeOff begins a refresh. There is none under way. The caller holds mu.
func (p *Provider) takeOff(f *flight) *flight {
	p.flight = f
	go f.fly(p.held)
	return f
}

// panicText says what the matter was, as long as it cannot hold a secret.
func panicText(r any) string {
	if err, ok := r.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("a value of type %T", r)
}

// land takes over what a refresh came to.
func (p *Provider) land(f *flight) {
	p.mu.Lock()
	if f.got != nil && (f.err == nil || p.held == nil || f.got.Expires.After(p.held.Expires)) {
		p.held = f.got
	}
	p.retryAt = time.Time{}
	if mayPass(f.err) {
		p.retryAt = p.cfg.Now().Add(pause)
	}
	p.flight = nil
	if next := p.next; next != nil {
		p.next = nil
		p.takeOff(next)
	}
	kept := p.held
	p.mu.Unlock()
	close(f.done)
	if f.err != nil && kept.serves(p) {
		defer func() { _ = recover() }() // of a Logger, which must not end the process
		p.cfg.Logger.Warn("aws credentials not refreshed", "error", f.err, "expires", kept.Expires)
	}
}

// refresh gets the ID token, and credentials for it: those that another process has kept, if they are fresh, else new ones.
// With an error it may return what still serves.
func (p *Provider) refresh(ctx context.Context, before *held, anew bool) (*held, error) {
	token, err := p.cfg.IDToken(ctx)
	if err != nil {
		err = fmt.Errorf("identity: ID token: %w", err)
		if hasEnded(err) {
			return nil, err
		}
		return nil, passing{err}
	}
	w, err := p.wanted(token)
	if err != nil {
		return nil, err
	}
	if before != nil && before.user != w.user {
		p.forget(before) // nobody is served what is another user's
		before = nil
	}
	if p.cache == nil {
		return p.fetch(ctx, w, before.identity())
	}
	return p.shared(ctx, w, before, anew)
}

// forget drops credentials that are kept.
func (p *Provider) forget(h *held) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == h {
		p.held = nil
	}
}

// identity returns the identity that credentials are of, empty if there are none.
func (h *held) identity() string {
	if h == nil {
		return ""
	}
	return h.IdentityID
}

// hasEnded reports whether an error of IDToken says that it will not pass, as one of pkg/cognito does for a sign-in that has
// ended. What the network's errors call temporary is another thing.
func hasEnded(err error) bool {
	var network net.Error
	var says interface{ Temporary() bool }
	return !errors.As(err, &network) && errors.As(err, &says) && !says.Temporary()
}

// A passing error is one of a reason that may pass, so that what is at hand serves on.
type passing struct{ error }

func (e passing) Unwrap() error { return e.error }

// mayPass reports whether asking again may help. What IDToken or AWS have said for good does not pass.
func mayPass(err error) bool {
	var p passing
	var r *RequestError
	return errors.As(err, &p) || errors.As(err, &r) && r.Temporary()
}
