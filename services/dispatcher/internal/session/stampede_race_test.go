//go:build race

package session_test

// stampede is how many machines come at once: the race detector follows 8,128 goroutines, and each machine has several.
const stampede = 500
