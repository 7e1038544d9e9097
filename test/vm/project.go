package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Project returns the project's root above the working folder, and the folders that a machine must see for the project's
// tests to run there: the root itself, Go, its modules, its build cache.
func Project(ctx context.Context) (root string, shared []string, err error) {
	if root, err = os.Getwd(); err != nil {
		return "", nil, err
	}
	for {
		if _, err := os.Stat(filepath.Join(root, "go.work")); err == nil {
			break
		}
		if root == filepath.Dir(root) {
			return "", nil, fmt.Errorf("no go.work above the working folder")
		}
		root = filepath.Dir(root)
	}
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT", "GOMODCACHE", "GOCACHE").Output()
	if err != nil {
		return "", nil, fmt.Errorf("ask go for its folders: %w", err)
	}
	return root, append([]string{root}, strings.Fields(string(out))...), nil
}
