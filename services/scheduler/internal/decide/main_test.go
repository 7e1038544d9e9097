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

// TestMain bounds the time for which a property test that failed looks for a shorter history, and has everybody's run draw the
// same histories, so that a change is judged by itself; `make chaos` draws others (-rapid.seed=0), and many more. A failure leaves no
// file in testdata, where TestScripts would take it for a script.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.shrinktime": "3s", "rapid.seed": "1", "rapid.nofailfile": "true"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	m.Run()
}
