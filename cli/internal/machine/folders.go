package machine

import (
	"errors"
	"slices"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/layout"
)

// removeFolders deletes what processes keep on this machine. The machine's id stays.
func (m *Machine) removeFolders() error {
	var faults []error
	for _, r := range layout.All() {
		faults = append(faults, m.clear(m.folder(r)))
	}
	return errors.Join(faults...)
}

// clear deletes a folder. One that is a file system of its own can't be removed while it is mounted, but what is in it can.
func (m *Machine) clear(dir string) error {
	err := m.Host.RemoveAll(dir)
	if err == nil {
		return nil
	}
	if names, fault := m.Env.Files.List(dir); fault == nil && len(remains(names)) == 0 {
		return nil
	}
	return errs.New(errs.Unavailable, "remove %s: %w", dir, err)
}

// remains are a folder's entries without that which each file system has by itself.
func remains(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "lost+found" })
}
