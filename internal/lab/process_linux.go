package lab

import "syscall"

// attributes asks the kernel to kill the program when the thread that started it ends (prctl(2), PR_SET_PDEATHSIG); Go ends
// a thread early only under a goroutine that exits while locked to it, which nothing here does. A process group of its own
// keeps a terminal's Ctrl-C from the program, so that whoever started it can end things in order.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
