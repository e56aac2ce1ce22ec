package unary

import (
	"errors"
	"net"
	"slices"
	"syscall"
	"time"
)

const (
	// idle is for how long a client has asked nothing that is told to go away when there are many. It loses nothing by that: its
	// next request opens another connection.
	idle = time.Minute
	// hurry is how long a connection may then take to greet. An honest one takes some round trips.
	hurry = 2 * time.Second
	// betweenLooks is the time between two looks at all connections for these, and betweenLines between two lines about them.
	betweenLooks, betweenLines = time.Second, time.Minute
)

// A crowd is what is known of too many connections. It is protected by Server.mu.
type crowd struct {
	turnedAway, failed int64
	lookAt, sayAt      time.Duration // the next time, of Server.clock
}

// Connections returns how many connections there are, how many have been turned away because there were too many, and how often
// the system could not hand one over.
func (s *Server) Connections() (now int, turnedAway, notAccepted int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.shaking) + len(s.conns), s.crowd.turnedAway, s.crowd.failed
}

// admit notes a new connection, so that Close finds it, unless there are too many.
func (s *Server) admit(nc net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining || s.closed {
		return false
	}
	all, most := len(s.shaking)+len(s.conns), s.limits.Connections
	if all >= most-most/10 {
		s.thin()
	}
	if all >= most {
		s.crowd.turnedAway++
		s.complain("there are too many")
		return false
	}
	_ = nc.SetReadDeadline(until(s.limits.Handshake))
	s.shaking[nc] = s.clock()
	return true
}

// notAccepted notes an error of Accept.
func (s *Server) notAccepted(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crowd.failed++
	s.thin()
	s.complain(err.Error())
}

// thin makes room, now and then. The caller holds mu.
func (s *Server) thin() {
	now := s.clock()
	if now < s.crowd.lookAt {
		return
	}
	s.crowd.lookAt = now + betweenLooks
	for nc, came := range s.shaking {
		if now-came > hurry {
			_ = nc.Close()
		}
	}
	for c := range s.conns {
		if c.idleSince(now - idle) {
			go c.drain()
		}
	}
}

// idleSince returns whether nothing is under way on a connection, and nothing has been asked since a time of Server.clock.
func (c *conn) idleSince(t time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.streams)+c.orphans == 0 && c.asked < int64(t)
}

// complain logs, now and then. The caller holds mu.
func (s *Server) complain(why string) {
	now := s.clock()
	if now < s.crowd.sayAt {
		return
	}
	s.crowd.sayAt = now + betweenLines
	go s.log.Warn("a connection was not taken", "error", why, // who writes logs may be slow
		"connections", len(s.shaking)+len(s.conns), "turned_away", s.crowd.turnedAway, "not_accepted", s.crowd.failed)
}

// passing are the errors of accept(2) that say something of a connection, or of now, and that package net does not know as such.
var passing = []error{
	syscall.ENOMEM, syscall.ENOBUFS, syscall.EPERM, syscall.EPROTO, syscall.ENOPROTOOPT,
	syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EHOSTUNREACH,
}

// isTemporary returns whether Accept may go better the next time: EMFILE and ENFILE, and what accept(2) passes on of the network.
func isTemporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary() || slices.ContainsFunc(passing, func(e error) bool { return errors.Is(err, e) })
}
