package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// minDisk is what an ext4 file system with a journal and a containerd on it need at least.
const minDisk = 16 << 20

// Disk puts a host's /var/lib/shoal and /var/lib/containerd on an ext4 file system of that size in bytes, with what is
// in them now. A host that is on is powered off for it and booted again. On the outer machine the host's folder then
// shows the data as it was before; the live one is on the disk.
func (l *Lab) Disk(ctx context.Context, host string, size int64) error {
	if size < minDisk {
		return fmt.Errorf("a disk of %d bytes is too small: at least %dM", size, minDisk>>20)
	}
	return l.change(func(state *State) error {
		_, found, err := l.host(host)
		if err != nil {
			return err
		}
		if found.Disk != "" {
			return fmt.Errorf("host %s has a disk of its own already", host)
		}
		_, offErr := l.alive(host)
		if err := l.powerOff(host); err != nil {
			return err
		}
		disk := l.path("hosts", host, "disk.ext4")
		if err := makeDisk(ctx, l.hostDir(host), disk, size); err != nil {
			return errors.Join(err, os.Remove(disk))
		}
		for i := range state.Hosts {
			if state.Hosts[i].Name == host {
				state.Hosts[i].Disk, found = disk, state.Hosts[i]
			}
		}
		found.Disk = disk
		if offErr == nil { // else it was off, and stays off
			err = l.boot(ctx, *state, found)
		}
		return err
	})
}

// makeDisk formats a file and copies the data folders into it, both in one go by mkfs.ext4 -d. The copy goes by a
// folder of links, because mkfs takes one folder and only two of those below var/lib are wanted.
func makeDisk(ctx context.Context, hostDir, disk string, size int64) error {
	file, err := os.OpenFile(disk, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = file.Truncate(size)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	source, err := os.MkdirTemp(filepath.Dir(hostDir), "disk-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(source) }()
	copied := exec.CommandContext(ctx, "cp", "-a", "--parents", "var/lib/shoal", "var/lib/containerd", source)
	copied.Dir = hostDir
	if said, err := copied.CombinedOutput(); err != nil {
		return fmt.Errorf("copy the data folders: %w: %s", err, strings.TrimSpace(string(said)))
	}
	said, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-d", source, disk).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make a file system of %d bytes with the host's data: %w: %s", size, err, strings.TrimSpace(string(said)))
	}
	return nil
}
