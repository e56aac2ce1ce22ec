// Package gate has each form of check that is found. Its tests leave some of them unnoticed.
package gate

import (
	"errors"
	"time"
)

const maxName = 8

// level is a name and no limit.
type level int

const high level = 2

var banned = []string{"eve", "mallory"}

var late = map[string]bool{"bob": true}

// Open reports why the gate stays shut.
func Open(name string, age int, at, closes time.Time) error {
	if age < 18 || len(name) > maxName {
		return errors.New("young or long")
	}
	for i := 0; i < len(banned); i++ {
		if banned[i] == name {
			return errors.New("banned")
		}
	}
	switch {
	case at.After(closes) && !late[name]:
		return errors.New("late")
	case name == "":
		return errors.New("nobody")
	}
	return named(name)
}

func named(name string) error {
	if known(name) {
		return nil
	}
	return errors.New("unknown")
}

func known(name string) bool { return name[0] != '?' }

func isHigh(l level) bool { return l >= high && l != 0 }
