//go:build !linux

package lab

import "syscall"

// attributes are none outside Linux: a program in the same process group ends with its parent by Ctrl-C, and outlives one
// that was killed.
func attributes() *syscall.SysProcAttr { return nil }
