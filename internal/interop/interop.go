// Package interop compares pkg/validator with verifiers that others have written, over a corpus of tokens that each differ in
// one thing from one that is accepted, and hands it tokens of issuers that others have written. It lets pkg/cognito/identity
// get AWS credentials from a stand-in that others have written, for SDKs that others have written. It has nothing but tests.
//
// `make interop` installs those verifiers and issuers and runs the tests; without it, those that need them are left out.
// Every case in which a verifier's answer is another than ours stands in disagreements.yaml with the reason why ours is right.
// docs/compare.md shows that table.
package interop
