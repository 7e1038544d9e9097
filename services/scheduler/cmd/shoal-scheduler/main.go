// Command shoal-scheduler decides which node runs which task. It keeps no state: everything it knows is a replica of the
// store, everything it wants is a commit.
package main

import (
	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/services/scheduler"
)

func main() { process.Main("scheduler", scheduler.DefaultConfig(), scheduler.Run) }
