//go:build !race

package session_test

// stampede is how many machines come at once.
const stampede = 10_000
