package systemd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// index writes the list of a flat apt repository: for each package its own control data and where it lies.
func index(ctx context.Context, folder string) error {
	debs, err := filepath.Glob(filepath.Join(folder, "*.deb"))
	if err != nil {
		return err
	}
	if len(debs) == 0 {
		return fmt.Errorf("no Debian package in %s", folder)
	}
	var list bytes.Buffer
	for _, deb := range debs {
		control, err := exec.CommandContext(ctx, "dpkg-deb", "--field", deb).Output()
		if err != nil {
			return fmt.Errorf("read %s: %w", deb, err)
		}
		data, err := os.ReadFile(deb)
		if err != nil {
			return err
		}
		hash := sha256.Sum256(data)
		list.Write(control)
		fmt.Fprintf(&list, "Filename: ./%s\nSize: %d\nSHA256: %s\n\n", filepath.Base(deb), len(data), hex.EncodeToString(hash[:]))
	}
	// Renamed into place: a machine may read it at any time.
	part := filepath.Join(folder, "Packages.part")
	if err := os.WriteFile(part, list.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(part, filepath.Join(folder, "Packages"))
}

// publish replaces what the shoal repository of the machines offers by the Debian packages of a folder.
func (m *Machines) publish(ctx context.Context, packages string) error {
	from, err := filepath.Glob(filepath.Join(packages, "*.deb"))
	if err != nil {
		return err
	}
	if len(from) == 0 {
		return fmt.Errorf("no Debian package in %s: run `make packages` first", packages)
	}
	old, err := filepath.Glob(filepath.Join(m.repository, "*.deb"))
	if err != nil {
		return err
	}
	for _, path := range from {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(m.repository, filepath.Base(path)), data, 0o644); err != nil {
			return err
		}
	}
	var faults []error
	for _, path := range old {
		if _, err := os.Stat(filepath.Join(packages, filepath.Base(path))); errors.Is(err, os.ErrNotExist) {
			faults = append(faults, os.Remove(path))
		}
	}
	return errors.Join(append(faults, index(ctx, m.repository))...)
}
