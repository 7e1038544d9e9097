// Command shoal-dispatcher delivers: it tells each machine what to run and what to connect, and carries back what became
// of it. It keeps nothing: sessions live in memory, everything else is a replica of the store.
package main

import (
	"context"

	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/dispatcher"
)

func main() {
	run.Collect(context.Background()) // most of its memory are sessions, which stay
	process.Main("dispatcher", dispatcher.DefaultConfig(), dispatcher.Run)
}
