// Package testonly holds what a configuration may only have in tests.
package testonly

// A Permit loosens a check. The zero Permit does not. Only this package can make another, and only the package
// validatortest calls it, for whoever has a [testing.TB]; a program that serves has none.
type Permit struct{ granted bool }

// Grant returns a Permit that loosens its check.
func Grant() Permit { return Permit{granted: true} }

// Granted reports whether the check is loosened.
func (p Permit) Granted() bool { return p.granted }
