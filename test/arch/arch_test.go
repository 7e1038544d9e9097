package arch_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shoalproject/shoal/test/arch"
)

// TestHouse holds the whole repository to every rule. All breaches of a rule are told at once.
func TestHouse(t *testing.T) {
	tree := load(t, repositoryRoot(t))
	for _, rule := range arch.Rules() {
		t.Run(rule.Name, func(t *testing.T) {
			for _, line := range rule.Run(tree) {
				t.Error(line)
			}
		})
	}
	for _, note := range arch.Notes(tree) {
		t.Log("note:", note)
	}
}

func load(t *testing.T, root string) *arch.Tree {
	t.Helper()
	tree, err := arch.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// repositoryRoot is the nearest folder above with a go.work.
func repositoryRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.work above the test: it must run inside the repository")
		}
		dir = filepath.Dir(dir)
	}
}
