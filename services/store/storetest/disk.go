// Package storetest has what tests need of a store: a disk that can crash.
//
// It owns honest crash semantics: what a store was promised to be durable is there after a crash, and of what was not, a
// beginning may be. It must never be kinder than a real disk. A Disk is safe for concurrent use.
package storetest

import (
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/store/internal/logstore"
)

// Disk is a store's log storage in memory. The zero value is not ready; see NewDisk. It is a store.Env's Storage.
type Disk struct {
	rand *run.Rand

	mu      sync.Mutex // guards all below
	durable content
	pending []func(*content) // written and not synced, in order
	opened  int              // counts handles; only the latest is alive
	alive   bool
	delay   time.Duration
	full    bool
	lying   bool
}

// content is what is on the disk, as bytes, so that nobody shares memory with it.
type content struct {
	id      uint64
	hard    []byte
	meta    []byte
	parts   [][]byte
	first   uint64 // index of entries[0]
	entries [][]byte
}

// NewDisk makes an empty disk; rand decides what a crash leaves of unsynced writes.
func NewDisk(rand *run.Rand) *Disk { return &Disk{rand: rand} }

// Crash makes the open handle dead at once. Of what was not synced, a beginning stays, of random length.
func (d *Disk) Crash() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.alive = false
	keep := d.rand.IntN(len(d.pending) + 1)
	for _, write := range d.pending[:keep] {
		write(&d.durable)
	}
	d.pending = nil
}

// SetDelay makes every sync take that long.
func (d *Disk) SetDelay(delay time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.delay = delay
}

// SetFull makes every write fail, or no more.
func (d *Disk) SetFull(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

// SetLying makes syncs return without effect: what a store must not survive unnoticed in a test.
func (d *Disk) SetLying(lying bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lying = lying
}

// Copy is a disk with what is durable now, as a snapshot of a virtual machine has it.
func (d *Disk) Copy() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.durable
	c.entries, c.parts = slices.Clone(c.entries), slices.Clone(c.parts)
	return &Disk{rand: d.rand, durable: c}
}

// Open implements the storage of a store.
func (d *Disk) Open() (logstore.Log, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.alive {
		return nil, errors.New("the log is open already")
	}
	d.alive = true
	d.opened++
	return &handle{disk: d, number: d.opened}, nil
}

// handle is an open Disk.
type handle struct {
	disk   *Disk
	number int
}

var errDead = errors.New("the disk is gone")

// write notes a write, and makes it durable if it is to be.
func (h *handle) write(sync bool, f func(*content)) error {
	delay, err := h.note(f)
	if err != nil || !sync {
		return err
	}
	if delay > 0 {
		t := time.NewTimer(delay) // not under the lock: a crash must be able to come in between
		<-t.C
	}
	return h.sync()
}

func (h *handle) note(f func(*content)) (time.Duration, error) {
	d := h.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !h.live():
		return 0, errDead
	case d.full:
		return 0, errors.New("no space left on device")
	}
	d.pending = append(d.pending, f)
	return d.delay, nil
}

func (h *handle) sync() error {
	d := h.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if !h.live() {
		return errDead
	}
	if d.lying {
		return nil
	}
	h.flush()
	return nil
}

// flush needs the lock.
func (h *handle) flush() {
	for _, write := range h.disk.pending {
		write(&h.disk.durable)
	}
	h.disk.pending = nil
}

// live needs the lock.
func (h *handle) live() bool { return h.disk.alive && h.disk.opened == h.number }

func marshal(m proto.Message) ([]byte, error) { return proto.MarshalOptions{}.Marshal(m) }

// writeBatch makes the write that a batch is.
func writeBatch(b logstore.Batch) (func(*content), error) {
	var hard []byte
	var entries [][]byte
	if b.HardState != nil {
		raw, err := marshal(b.HardState)
		if err != nil {
			return nil, err
		}
		hard = raw
	}
	for _, e := range b.Entries {
		raw, err := marshal(e)
		if err != nil {
			return nil, err
		}
		entries = append(entries, raw)
	}
	first := uint64(0)
	if len(b.Entries) > 0 {
		first = b.Entries[0].GetIndex()
	}
	return func(c *content) {
		if b.ID != 0 {
			c.id = b.ID
		}
		if b.HardState != nil {
			c.hard = append([]byte{}, hard...)
		}
		if len(entries) == 0 {
			return
		}
		if len(c.entries) == 0 || first < c.first {
			c.first, c.entries = first, nil
		}
		c.entries = append(c.entries[:first-c.first:first-c.first], entries...)
	}, nil
}

// Save implements logstore.Log.
func (h *handle) Save(b logstore.Batch) error {
	f, err := writeBatch(b)
	if err != nil {
		return err
	}
	return h.write(b.Sync, f)
}

func collect(s logstore.Snapshot) (meta []byte, parts [][]byte, err error) {
	for part, err := range s.Parts {
		if err != nil {
			return nil, nil, err
		}
		parts = append(parts, slices.Clone(part))
	}
	meta, err = marshal(s.Meta)
	return meta, parts, err
}

// Checkpoint implements logstore.Log.
func (h *handle) Checkpoint(s logstore.Snapshot, compact uint64) error {
	meta, parts, err := collect(s)
	if err != nil {
		return err
	}
	return h.write(true, func(c *content) {
		c.meta, c.parts = meta, parts
		if n := min(uint64(len(c.entries)), compact+1-min(compact+1, c.first)); n > 0 {
			c.entries, c.first = slices.Clone(c.entries[n:]), c.first+n
		}
	})
}

// Install implements logstore.Log.
func (h *handle) Install(s logstore.Snapshot, b logstore.Batch) error {
	meta, parts, err := collect(s)
	if err != nil {
		return err
	}
	f, err := writeBatch(b)
	if err != nil {
		return err
	}
	return h.write(true, func(c *content) {
		c.meta, c.parts = meta, parts
		c.entries, c.first = nil, 0
		f(c)
	})
}

// Load implements logstore.Log.
func (h *handle) Load() (logstore.Contents, error) {
	d := h.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	out := logstore.Contents{}
	if !h.live() {
		return out, errDead
	}
	c := d.seen()
	out.ID = c.id
	if c.hard != nil {
		out.HardState = &raftpb.HardState{}
		if err := proto.Unmarshal(c.hard, out.HardState); err != nil {
			return out, err
		}
	}
	if c.meta != nil {
		out.Snapshot = &raftpb.SnapshotMetadata{}
		if err := proto.Unmarshal(c.meta, out.Snapshot); err != nil {
			return out, err
		}
	}
	for _, raw := range c.entries {
		e := &raftpb.Entry{}
		if err := proto.Unmarshal(raw, e); err != nil {
			return out, err
		}
		out.Entries = append(out.Entries, e)
	}
	return out, nil
}

// seen is the content as an open handle reads it: the unsynced too. It needs the lock.
func (d *Disk) seen() content {
	c := d.durable
	c.entries = slices.Clone(c.entries)
	for _, write := range d.pending {
		write(&c)
	}
	return c
}

// Parts implements logstore.Log.
func (h *handle) Parts() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		h.disk.mu.Lock()
		parts, live := h.disk.seen().parts, h.live()
		h.disk.mu.Unlock()
		if !live {
			yield(nil, errDead)
			return
		}
		for _, p := range parts {
			if !yield(slices.Clone(p), nil) {
				return
			}
		}
	}
}

// Close implements logstore.Log. A process that ends leaves what it wrote to the operating system.
func (h *handle) Close() error {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	if h.live() {
		h.disk.alive = false
	}
	return nil
}
