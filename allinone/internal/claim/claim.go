// Package claim makes sure that one cluster of shoal-dev at a time is on a machine, and remembers whose the containers,
// interfaces and rules are that a run has left.
//
// It owns a folder that ends with the machine's power: its lock, its note of the owner, and at the end its removal. It must
// never take what another cluster has left for its own. A Claim belongs to one run.
package claim

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
)

// note is what a run leaves for the next one.
type note struct {
	// Data is the folder of the cluster to which belongs what is on the machine.
	Data string `json:"data"`
	// PID is the process that has it, while the lock is held.
	PID int `json:"pid"`
	// Before is the context that was in use before ours.
	Before string `json:"context_before"`
}

// Claim is the machine's one place.
type Claim struct {
	dir  string
	lock *os.File
	note note
	was  bool // an earlier run of this cluster has left something
}

// Take claims the machine for the cluster in a folder. Without privilege nothing is done, since nothing can be: the check
// that follows says so. Errors: Precondition (another one runs, or has left its containers).
func Take(dir, data string, privileged bool) (*Claim, error) {
	c := &Claim{dir: dir, note: note{Data: data, PID: os.Getpid()}}
	if !privileged {
		return c, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, errs.New(errs.Unavailable, "make %s: %w", dir, err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "lock %s: %w", dir, err)
	}
	last, had := c.read()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		err = errs.New(errs.Precondition, "another shoal-dev runs on this machine (process %d, with the cluster in %s); stop it first: both would use the same ports, interfaces and packet filter", last.PID, last.Data)
		return nil, errors.Join(err, lock.Close())
	}
	c.lock = lock
	if had && last.Data != data {
		err := errs.New(errs.Precondition, "the cluster in %s has left containers on this machine; start it again with --data %[1]s, or remove it with `shoal-dev reset --data %[1]s`", last.Data)
		return nil, errors.Join(err, lock.Close())
	}
	c.was, c.note.Before = had, last.Before
	return c, nil
}

func (c *Claim) noteFile() string { return filepath.Join(c.dir, "owner.json") }

func (c *Claim) read() (n note, had bool) {
	data, err := os.ReadFile(c.noteFile())
	if err != nil || json.Unmarshal(data, &n) != nil {
		return note{}, false
	}
	return n, true
}

// Found says whether an earlier run of this cluster has left something on the machine.
func (c *Claim) Found() bool { return c.was }

// Before is the context that was in use before this cluster's, as Use has noted it, also in an earlier run.
func (c *Claim) Before() string { return c.note.Before }

// Begin notes that what is on the machine from now on belongs to this cluster.
func (c *Claim) Begin() error { return c.write() }

// Use notes the context that was in use before ours.
func (c *Claim) Use(before string) error {
	c.note.Before = before
	return c.write()
}

func (c *Claim) write() error {
	data, err := json.Marshal(c.note)
	if err == nil {
		err = os.WriteFile(c.noteFile(), append(data, '\n'), 0o600)
	}
	if err != nil {
		return errs.New(errs.Unavailable, "note in %s what runs here: %w", c.dir, err)
	}
	return nil
}

// Clean removes the folder: nothing of the cluster is on the machine any more.
func (c *Claim) Clean() error {
	err := os.RemoveAll(c.dir)
	// A mount in it is a container's namespace that was not removed.
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.Unavailable, "remove %s: %w", c.dir, err)
	}
	return nil
}

// Release gives the machine free. What was noted stays.
func (c *Claim) Release() error {
	if c.lock == nil {
		return nil
	}
	// A run that never began leaves no folder: neither lock nor note mean anything.
	if _, err := os.Stat(c.noteFile()); errors.Is(err, fs.ErrNotExist) {
		_ = os.Remove(c.lock.Name())
		_ = os.Remove(c.dir) // it may have something of somebody else's
	}
	return c.lock.Close()
}
