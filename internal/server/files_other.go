//go:build !unix

package server

// maxFiles returns how many files this process may have open: more than matter.
func maxFiles() uint64 { return 1 << 20 }
