package decide_test

import (
	"flag"
	"testing"
)

// TestMain bounds the time for which a property test that failed looks for a shorter history: -rapid.shrinktime overrides it.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.shrinktime", "3s"); err != nil {
		panic(err)
	}
	m.Run()
}
