package unary_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cognito-extauthz/extauthz/internal/unary"
)

// crowded serves over pipes in a bubble, to at most ten connections. dial returns a connection, and whether it was taken.
func crowded(t *testing.T, f func(t *testing.T, s *unary.Server, log *lines, dial func() (*peer, bool))) {
	synctest.Test(t, func(t *testing.T) {
		log := new(lines)
		s := unary.New(unary.Config{
			Methods: newBackend().methods(), Limits: unary.Limits{Connections: 10}, Logger: slog.New(slog.NewTextHandler(log, nil)),
		})
		l := newPipes()
		go func() { _ = s.Serve(l) }()
		var all []net.Conn
		f(t, s, log, func() (*peer, bool) {
			_, before, _ := s.Connections()
			p := newPeer(t, l.dial())
			all = append(all, p.Conn)
			synctest.Wait()
			_, after, _ := s.Connections()
			return p, after == before
		})
		for _, c := range all {
			_ = c.Close()
		}
		_ = l.Close()
		s.Close()
		time.Sleep(time.Hour) // of the bubble's clock: goroutines that send end too
	})
}

// lines is a log.
type lines struct {
	sync.Mutex
	bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.Lock()
	defer l.Unlock()
	return l.Buffer.Write(p)
}

func (l *lines) count(text string) int {
	l.Lock()
	defer l.Unlock()
	return strings.Count(l.String(), text)
}

// Beyond the bound, new connections are turned away, which is counted, and logged now and then. Those there are go on.
func TestConnectionsAreBounded(t *testing.T) {
	crowded(t, func(t *testing.T, s *unary.Server, log *lines, dial func() (*peer, bool)) {
		var first *peer
		for i := range 10 {
			p, ok := dial()
			if !ok {
				t.Fatalf("connection %d is turned away", i)
			}
			if i == 0 {
				first = p
			}
			go discard(p)
			p.greet()
		}
		for range 100 {
			if _, ok := dial(); ok {
				t.Fatal("one more is taken")
			}
		}
		synctest.Wait()
		if n, away, _ := s.Connections(); n != 10 || away != 100 {
			t.Errorf("%d connections and %d turned away, want 10 and 100", n, away)
		}
		if n := log.count("too many"); n != 1 {
			t.Errorf("%d lines, want one", n)
		}
		_ = first.Conn.Close()
		synctest.Wait()
		if _, ok := dial(); !ok {
			t.Error("one that has room is turned away")
		}
	})
}

// discard reads a connection to its end.
func discard(p *peer) { _, _ = io.Copy(io.Discard, p.Conn) }

// When there are many, a client that has asked nothing for long is told to go away, whether it pings or not, and one that does not
// greet has little time. Who asks is left alone.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	crowded(t, func(t *testing.T, s *unary.Server, _ *lines, dial func() (*peer, bool)) {
		asks, _ := dial()
		asks.greetBoth()
		for range 7 {
			p, _ := dial()
			go discard(p)
			p.greet()
			go func() {
				for p.WritePing(false, [8]byte{}) == nil {
					time.Sleep(10 * time.Second)
				}
			}()
		}
		time.Sleep(2 * time.Minute)
		go asks.call(1, echo, "a")
		if got := asks.answer(1).text(); got != "a" {
			t.Errorf("got %s, want a", got)
		}
		synctest.Wait()
		if n, _, _ := s.Connections(); n != 8 {
			t.Errorf("%d connections, want eight: there is no crowd yet", n)
		}
		_, _ = dial() // does not greet
		time.Sleep(5 * time.Second)
		_, _ = dial() // the tenth of ten
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n, _, _ := s.Connections(); n != 2 {
			t.Errorf("%d connections, want the one that asks and the last", n)
		}
		go asks.call(3, echo, "b")
		if got := asks.answer(3).text(); got != "b" {
			t.Errorf("got %s, want b", got)
		}
	})
}

// failing is a listener whose Accept fails at first.
type failing struct {
	*pipes
	errs chan error
}

func (l failing) Accept() (net.Conn, error) {
	select {
	case err := <-l.errs:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", err)}
	default:
		return l.pipes.Accept()
	}
}

// What the system cannot do now, it may do later: Serve waits, longer each time, says so now and then, and goes on.
func TestAcceptGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(lines)
		s := unary.New(unary.Config{Methods: newBackend().methods(), Logger: slog.New(slog.NewTextHandler(log, nil))})
		l := failing{newPipes(), make(chan error, 100)}
		for _, err := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EPERM, syscall.EPROTO} {
			for range 4 {
				l.errs <- err
			}
		}
		began, done := time.Now(), make(chan error, 1)
		go func() { done <- s.Serve(l) }()
		p := newPeer(t, l.dial())
		if took := time.Since(began); took < 10*time.Second || took > time.Minute {
			t.Errorf("24 errors took %v, want a second each after the first", took)
		}
		p.greetBoth()
		_ = p.Conn.Close()
		if _, _, failed := s.Connections(); failed != 24 || log.count("not taken") != 1 {
			t.Errorf("%d errors and this log, want 24 and one line:\n%s", failed, log.String())
		}
		s.Close()
		<-done
	})
	broken := failing{newPipes(), make(chan error, 1)}
	broken.errs <- syscall.EBADF
	if err := unary.New(unary.Config{}).Serve(broken); !errors.Is(err, syscall.EBADF) {
		t.Errorf("got %v, want that the listener is broken", err)
	}
}
