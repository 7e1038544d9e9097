package decide_test

import (
	"os"
	"strings"
	"testing"
)

// TestEveryScriptIsTold: the page about scheduling names each script beside the rule that it shows.
func TestEveryScriptIsTold(t *testing.T) {
	page, err := os.ReadFile("../../../../docs/reference/scheduling.md")
	if err != nil {
		t.Fatal(err)
	}
	scripts, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scripts {
		if !s.IsDir() && !strings.Contains(string(page), "`"+s.Name()+"`") {
			t.Errorf("docs/reference/scheduling.md does not say which rule the script %s shows", s.Name())
		}
	}
}
