package decide_test

import (
	"flag"
	"testing"
	"time"
)

// Flags: a whole day of a large cluster, drawn: -day 24h -nodes 10000 -figures DIR.
var (
	dayFlag     = flag.Duration("day", 3*time.Hour, "how long TestDay lasts in the cluster's time")
	nodesFlag   = flag.Int("nodes", 100, "how many nodes it has")
	figuresFlag = flag.String("figures", "", "draw figures into this folder")
)

// TestMain bounds the time for which a property test that failed looks for a shorter history: -rapid.shrinktime overrides it.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.shrinktime", "3s"); err != nil {
		panic(err)
	}
	m.Run()
}
