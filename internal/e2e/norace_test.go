//go:build !race

package e2e_test

// raceDetector says whether the tests have it, which makes them, and the program, several times as slow.
const raceDetector = false
