// Command shoal-dispatcher delivers: it tells each machine what to run and what to connect, and carries back what became
// of it. It keeps nothing: sessions live in memory, everything else is a replica of the store.
package main

import (
	"runtime/debug"

	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/services/dispatcher"
)

// collectAt is when memory is collected: when a quarter of what is in use has come on top. Most of what is in use are sessions,
// which stay; so that costs little time, and as a rule (twice as much) the memory of thousands of them would be there twice.
const collectAt = 25

func main() {
	debug.SetGCPercent(collectAt)
	process.Main("dispatcher", dispatcher.DefaultConfig(), dispatcher.Run)
}
