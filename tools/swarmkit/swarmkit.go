// Package swarmkit measures SwarmKit's scheduler as ours is measured, to compare both in one run: `make bench-scheduler`.
//
// It owns a module of its own, so that SwarmKit's dependencies are nobody else's. It has benchmarks alone.
package swarmkit
