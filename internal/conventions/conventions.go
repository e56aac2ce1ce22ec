// Package conventions holds the habits of this project as tests: which package may import which, that every package
// says what it is for, that the documentation's commands run. It has nothing but tests.
package conventions
