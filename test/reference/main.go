// Command reference writes docs/reference/config, a page for each process's config file, from the doc comments of the
// Config structs and the values of DefaultConfig, and docs/reference/service-spec.md from the comments of the protos. With -check it writes nothing and fails if a page is not what it would
// write.
//
// It reads the sources as text: nothing of a process is run or linked. It must never hold a fact about a key that does not
// stand at the key.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// folder is where the pages are, below the project's folder.
const folder = "docs/reference/config"

func main() {
	root := flag.String("root", ".", "the project's `folder`")
	check := flag.Bool("check", false, "write nothing, fail if a page would change")
	flag.Parse()
	if err := work(*root, *check); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func work(root string, check bool) error {
	var faults []error
	for _, p := range processes() {
		text, err := page(root, p)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		faults = append(faults, put(root, filepath.Join(folder, p.name+".md"), text, check))
	}
	text, err := specText(root)
	if err == nil {
		err = put(root, specPage, text, check)
	}
	return errors.Join(append(faults, err)...)
}

// put writes a page, or says that it would be another.
func put(root, name string, text []byte, check bool) error {
	old, err := os.ReadFile(filepath.Join(root, name))
	switch {
	case err == nil && bytes.Equal(old, text):
		return nil
	case check:
		return fmt.Errorf("%s is not what the code says; run: make fix-docs", name)
	}
	return os.WriteFile(filepath.Join(root, name), text, 0o644)
}
