// Command shoal-dispatcher delivers: it tells each machine what to run and what to connect, and carries back what became
// of it. It keeps nothing: sessions live in memory, everything else is a replica of the store.
package main

import (
	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/services/dispatcher"
)

func main() { process.Main("dispatcher", dispatcher.DefaultConfig(), dispatcher.Run) }
