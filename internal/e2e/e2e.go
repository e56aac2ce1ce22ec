// Package e2e tests everything together: a real Envoy with the configuration that is shipped, the extauthz program,
// built with the race detector if the tests are, a stand-in for Cognito, and an upstream that tells what reached it. It
// has nothing but tests; docs/security.md names those that hold the guarantees of the project.
//
// One stand-in, and one extauthz for each configuration in testdata, serve most tests. There are several Envoys. The one
// called shipped has deploy/envoy/envoy.yaml, and only waits longer for an answer than that says, since machines that run
// tests are busy. The one called open has parts of its own care switched off: it normalizes nothing, takes no header out,
// and lets requests pass when the check fails, so that whatever is refused there, extauthz refused. Tests of time, and of
// programs that end, start their own, with the shipped times.
package e2e
