package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// foreign is the file with the licences of all that is linked into the binaries and is not ours.
func foreign(dir string) string { return filepath.Join(dir, "third-party-licences.txt") }

// licences writes the terms and notices of every module that a program has code of, which they ask for, and of Go itself.
func (b *builder) licences(ctx context.Context, to string) error {
	args := []string{"list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}\t{{.Dir}}{{end}}{{end}}"}
	for _, name := range programs() {
		args = append(args, "./"+source(name))
	}
	list, err := b.goTool(ctx, args...)
	if err != nil {
		return err
	}
	root, err := b.goTool(ctx, "env", "GOROOT")
	if err != nil {
		return err
	}
	lines := []string{"Go\t" + strings.TrimSpace(root)}
	for line := range strings.Lines(list) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "github.com/shoalproject/") {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	var out bytes.Buffer
	fmt.Fprintln(&out, "The programs of shoal contain code of others, on these terms.")
	for _, line := range slices.Compact(lines) {
		name, dir, _ := strings.Cut(line, "\t")
		if err := terms(&out, name, dir); err != nil {
			return err
		}
	}
	return writePublic(to, out.Bytes())
}

// terms adds what a module says about its use. One that says nothing must not be shipped.
func terms(out *bytes.Buffer, name, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("licence of %s: %w", name, err)
	}
	found := false
	for _, e := range entries {
		if e.IsDir() || !regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)([.-].*)?$`).MatchString(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return fmt.Errorf("licence of %s: %w", name, err)
		}
		fmt.Fprintf(out, "\n%s\n%s: %s\n\n%s\n", strings.Repeat("=", 100), name, e.Name(), bytes.TrimSpace(text))
		found = true
	}
	if !found && name != "Go" { // some distributions keep Go's elsewhere; golang.org/x has the same
		return fmt.Errorf("%s has no licence in %s; look for it, and do not ship what has none", name, dir)
	}
	return nil
}

// goTool asks the go command in the workspace.
func (b *builder) goTool(ctx context.Context, args ...string) (string, error) {
	c := exec.CommandContext(ctx, "go", args...)
	c.Dir = b.root
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOWORK="+filepath.Join(b.root, "go.work"))
	var faults bytes.Buffer
	c.Stderr = &faults
	text, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w: %s", args[0], err, strings.TrimSpace(faults.String()))
	}
	return string(text), nil
}
