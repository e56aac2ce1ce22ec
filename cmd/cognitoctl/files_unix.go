//go:build unix

package main

import (
	"fmt"
	"os"
)

// checkWriters refuses a configuration file that every user of the machine can write: it may name a command.
func checkWriters(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o002 != 0 {
		err = fmt.Errorf("%s can be written by everybody, want it to be its owner's, as it may name a command", path)
		return &codedError{exitUsage, err, "chmod o-w " + path}
	}
	return nil
}
