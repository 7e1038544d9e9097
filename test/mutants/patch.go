package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// mutant is one committed patch.
type mutant struct {
	name    string // the file's, without .patch
	file    string // absolute, so that it can be applied from the copy
	promise string // the guarantee that it removes, in words
	target  target // the test that must turn red
}

// pack is a package: a module's folder and the path in it, as go test takes them.
type pack struct{ module, path string }

// target names a test: go -C module test path -run run.
type target struct {
	pack
	run string
}

func (t target) String() string {
	return fmt.Sprintf("go -C %s test %s -run %s", t.module, t.path, t.run)
}

// parse reads the header of a patch: the lines before the diff that start with "# ".
//
//	# promise: a write is answered only after its fsync
//	# test: services/store ./internal/disk ^TestSyncedSurvives$
func parse(file string) (mutant, error) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return mutant{}, err
	}
	text, err := os.ReadFile(abs)
	if err != nil {
		return mutant{}, err
	}
	m := mutant{name: strings.TrimSuffix(filepath.Base(file), ".patch"), file: abs}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "# promise":
			m.promise = value
		case "# test":
			words := strings.Fields(value)
			if len(words) != 3 {
				return mutant{}, fmt.Errorf(`%s: "# test:" wants <module folder> <package> <regexp>, got %q`, file, value)
			}
			m.target = target{pack{words[0], words[1]}, words[2]}
		}
	}
	if m.promise == "" || m.target == (target{}) {
		return mutant{}, fmt.Errorf(`%s: the header wants a "# promise: …" and a "# test: <module folder> <package> <regexp>" line`, file)
	}
	return m, nil
}
