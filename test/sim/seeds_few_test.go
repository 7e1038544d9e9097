//go:build !chaos

package sim_test

// manySeeds are as many as hit everything at least once.
const manySeeds = 20
