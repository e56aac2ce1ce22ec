//go:build !windows

package login

import "syscall"

// Why an address cannot be listened on.
const (
	errInUse     = syscall.EADDRINUSE
	errNoAddress = syscall.EADDRNOTAVAIL
	errNoFamily  = syscall.EAFNOSUPPORT
)
