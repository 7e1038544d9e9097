//go:build chaos

package sim_test

// manySeeds are an hour or two of one processor.
const manySeeds = 3000
