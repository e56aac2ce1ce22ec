package unary_test

import (
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/cognito-extauthz/extauthz/internal/unary"
)

// When the client has acknowledged, its last stream is named at once, and that holds: a later stream gets no answer of any kind, and
// no later GOAWAY names it, so that the client may safely ask elsewhere. One who greets meanwhile is told too.
func TestLastStreamStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend()
		s, l := unary.New(unary.Config{Methods: b.methods()}), newPipes()
		go func() { _ = s.Serve(l) }()
		p, late := newPeer(t, l.dial()), newPeer(t, l.dial())
		p.greetBoth()
		go p.call(1, hold, "a")
		<-b.entered
		synctest.Wait() // for who writes, as they take turns
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(t.Context()) }()
		ping := p.wait("PING", func(f http2.Frame) bool { _, ok := f.(*http2.PingFrame); return ok }).(*http2.PingFrame).Data
		began := time.Now()
		go func() { _ = p.WritePing(true, ping) }()
		last := func(p *peer) uint32 {
			isGoAway := func(f http2.Frame) bool { _, ok := f.(*http2.GoAwayFrame); return ok }
			return p.wait("GOAWAY", isGoAway).(*http2.GoAwayFrame).LastStreamID
		}
		if got := last(p); got != 1 || time.Since(began) != 0 {
			t.Errorf("GOAWAY %d after %v, want 1 at once", got, time.Since(began))
		}
		synctest.Wait()
		go func() {
			p.call(3, echo, "too late")
			_ = p.WritePing(false, [8]byte{})
		}()
		for f := p.frame(); f.Header().Type != http2.FramePing; f = p.frame() {
			t.Errorf("%v, want nothing", f)
		}
		synctest.Wait()
		go func() { _ = p.WriteData(99, true, nil) }() // on an idle stream, which ends the connection
		if got := last(p); got != 1 {
			t.Errorf("GOAWAY %d, want 1 still", got)
		}
		late.greetBoth()
		if got := last(late); got != 1<<31-1 {
			t.Errorf("GOAWAY %d, want the highest", got)
		}
		_, _ = p.Close(), late.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.Close()
		time.Sleep(time.Hour) // of the bubble's clock: goroutines that send end too
	})
}
