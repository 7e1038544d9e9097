package main

import (
	"runtime/debug"
	"strings"
	"testing"
)

// TestSmall: there is one beside each container, and the container waits for it to start, so that it links nothing that it does not need.
func TestSmall(t *testing.T) {
	info, ok := debug.ReadBuildInfo()
	if !ok || len(info.Deps) == 0 {
		t.Fatal("what is linked is not known")
	}
	for _, m := range info.Deps {
		if m.Path != "golang.org/x/sys" && !strings.HasPrefix(m.Path, "github.com/shoalproject/shoal/") {
			t.Errorf("it links %s", m.Path)
		}
	}
}
