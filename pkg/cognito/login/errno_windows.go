package login

import "golang.org/x/sys/windows"

// Why an address cannot be listened on. Those of package syscall are made up on Windows, and never come.
const (
	errInUse     = windows.WSAEADDRINUSE
	errNoAddress = windows.WSAEADDRNOTAVAIL
	errNoFamily  = windows.WSAEAFNOSUPPORT
)
