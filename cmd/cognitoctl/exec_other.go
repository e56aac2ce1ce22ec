//go:build !unix

package main

import "os"

// passedOn are the signals that must not end us before the program. The console sends it to both.
var passedOn = []os.Signal{os.Interrupt}

// terminalSends reports whether the program gets a signal from the console itself.
func terminalSends(os.Signal) bool { return true }

// killedBy is for systems on which programs always have an exit code.
func killedBy(*os.ProcessState) int { return 0 }
