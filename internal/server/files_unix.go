//go:build unix

package server

import "syscall"

// maxFiles returns how many files this process may have open.
func maxFiles() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1 << 10 // what systems have that have little
	}
	return uint64(limit.Cur) //nolint:unconvert // FreeBSD's is signed
}
