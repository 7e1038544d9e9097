// Package simdisk is a host's disk in the simulation: it survives the crashes of its host, and can be full, slow or broken.
//
// A process uses it through a Handle, a run.Files that dies with it. Since run.Files writes atomically and durably, a
// crash leaves each file old or new, whole; a write that was waiting on a slow disk at the moment of the crash falls either
// way, by the seed, and its caller has not been told that it was done. No mutex is held while an operation waits.
package simdisk

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/shoalproject/shoal/internal/testx"
)

// ErrDead is what the handle of a dead process returns, always.
var ErrDead = errors.New("simulated process is dead: its disk is gone")

// Disk is made by New. Its methods may be called at any time, by anybody.
type Disk struct {
	files *testx.Files

	mu      sync.Mutex // guards all below; nothing waits while it is held
	rng     *rand.Rand
	slow    time.Duration
	full    bool
	failing error
	pending map[*change]struct{}
	stats   Stats
}

// Stats counts what was done and what the faults have hit.
type Stats struct {
	Writes int // done
	Failed int // operations that a fault has failed
	Slowed int // operations that had to wait
	Torn   int // changes that were waiting when their process died
}

// change is a write or removal that waits on a slow disk.
type change struct {
	by    *Handle
	apply func() error
}

// New is an empty disk.
func New(seed uint64) *Disk {
	return &Disk{files: testx.NewFiles(), rng: rand.New(rand.NewPCG(seed, 0xd15c)), pending: map[*change]struct{}{}}
}

// Files is the disk as its host's owner sees it: no fault and no crash touches this view. For set-up and inspection.
func (d *Disk) Files() *testx.Files { return d.files }

// Open gives a process its handle.
func (d *Disk) Open() *Handle { return &Handle{disk: d} }

// Slow makes every operation wait that long before it is done.
func (d *Disk) Slow(each time.Duration) { d.set(func() { d.slow = each }) }

// Full makes every write fail with ENOSPC. Reading and removing work.
func (d *Disk) Full(full bool) { d.set(func() { d.full = full }) }

// Fail makes every operation fail with the error, until Fail(nil).
func (d *Disk) Fail(err error) { d.set(func() { d.failing = err }) }

// Stats is a copy of the counters.
func (d *Disk) Stats() (s Stats) {
	d.set(func() { s = d.stats })
	return s
}

func (d *Disk) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// Handle is one process's view of a Disk. It implements run.Files.
type Handle struct {
	disk *Disk
	dead bool // guarded by disk.mu
}

// Kill is the moment of the process's death: what it does from now on fails and changes nothing, and each change that was
// waiting is done or not. It may be called again.
func (h *Handle) Kill() {
	d := h.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	h.dead = true
	for c := range d.pending {
		if c.by != h {
			continue
		}
		delete(d.pending, c)
		d.stats.Torn++
		if d.rng.IntN(2) == 0 {
			_ = c.apply() // nobody is there to hear of a failure
		}
	}
}

// Read is as in run.Files.
func (h *Handle) Read(name string) (data []byte, err error) {
	err = h.do("read", name, nil, func() error { data, err = h.disk.files.Read(name); return err })
	return data, err
}

// List is as in run.Files.
func (h *Handle) List(dir string) (names []string, err error) {
	err = h.do("list", dir, nil, func() error { names, err = h.disk.files.List(dir); return err })
	return names, err
}

// Stat is as in run.Files.
func (h *Handle) Stat(name string) (info fs.FileInfo, err error) {
	err = h.do("stat", name, nil, func() error { info, err = h.disk.files.Stat(name); return err })
	return info, err
}

// Remove is as in run.Files.
func (h *Handle) Remove(name string) error {
	return h.do("remove", name, &change{by: h}, func() error { return h.disk.files.Remove(name) })
}

// Write is as in run.Files.
func (h *Handle) Write(name string, data []byte, mode fs.FileMode) error {
	return h.put(name, func() error { return h.disk.files.Write(name, data, mode) })
}

// Create is as in run.Files.
func (h *Handle) Create(name string, data []byte, mode fs.FileMode) error {
	return h.put(name, func() error { return h.disk.files.Create(name, data, mode) })
}

func (h *Handle) put(name string, write func() error) error {
	return h.do("write", name, &change{by: h}, func() error {
		if h.disk.full {
			h.disk.stats.Failed++
			return &fs.PathError{Op: "write", Path: name, Err: syscall.ENOSPC}
		}
		h.disk.stats.Writes++
		return write()
	})
}

// do waits as long as the disk is slow, then does the operation under the lock, unless the process has died or the disk
// fails. A change (nil for reads) is on the list while it waits, so that a crash can find it.
func (h *Handle) do(op, name string, c *change, apply func() error) error {
	d := h.disk
	d.mu.Lock()
	wait := d.slow
	if h.dead {
		wait = 0
	}
	if wait > 0 {
		d.stats.Slowed++
		if c != nil {
			c.apply = apply
			d.pending[c] = struct{}{}
		}
	}
	d.mu.Unlock()
	if wait > 0 {
		<-time.After(wait)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.pending, c)
	switch {
	case h.dead:
		return fmt.Errorf("%s %s: %w", op, name, ErrDead)
	case d.failing != nil:
		d.stats.Failed++
		return &fs.PathError{Op: op, Path: name, Err: d.failing}
	}
	return apply()
}
