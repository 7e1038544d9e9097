package logstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Disk is a folder with a Pebble database.
type Disk struct {
	// Dir is the folder; it is made when it is absent.
	Dir string
	// FS is the file system; nil is the machine's.
	FS vfs.FS
	// Log gets what Pebble reports as an error.
	Log *slog.Logger
	// Synced is told how long each synced write took; may be nil.
	Synced func(time.Duration)
}

// Keys. Numbers are big-endian, so that the order of keys is the order of indexes.
const (
	keyID       = "id"
	keyHard     = "hard"
	keySnapshot = "snapshot" // metadata of the snapshot that counts
	prefixEntry = "e/"
	prefixPart  = "p/" // p/<index>/<part>
)

func entryKey(index uint64) []byte { return binary.BigEndian.AppendUint64([]byte(prefixEntry), index) }

func partPrefix(index uint64) []byte {
	return append(binary.BigEndian.AppendUint64([]byte(prefixPart), index), '/')
}

func partKey(index uint64, part uint32) []byte {
	return binary.BigEndian.AppendUint32(partPrefix(index), part)
}

// Open opens or makes the database.
func (d Disk) Open() (Log, error) {
	opts := &pebble.Options{
		FS:     d.FS,
		Logger: reporter{d.Log},
		// The log is small and short-lived: what is written is deleted again by the next checkpoint.
		MemTableSize:          16 << 20,
		L0CompactionThreshold: 4,
		MaxOpenFiles:          256,
		FormatMajorVersion:    pebble.FormatNewest,
	}
	db, err := pebble.Open(d.Dir, opts)
	if err != nil {
		return nil, fmt.Errorf("open the log in %s: %w", d.Dir, err)
	}
	synced := d.Synced
	if synced == nil {
		synced = func(time.Duration) {}
	}
	return &openLog{dir: d.Dir, db: db, synced: synced}, nil
}

// openLog is an open database.
type openLog struct {
	dir    string
	db     *pebble.DB
	synced func(time.Duration)

	mu   sync.Mutex // guards last
	last uint64     // index of the last entry, so that an append need not look for what it replaces
}

func (l *openLog) wrap(doing string, err error) error {
	return fmt.Errorf("%s the log in %s: %w; move that folder away and start again, to join as a new member", doing, l.dir, err)
}

// Load implements Log.
func (l *openLog) Load() (Contents, error) {
	c, err := l.load()
	if err != nil {
		return Contents{}, l.wrap("read", err)
	}
	l.setLast(lastOf(c))
	return c, nil
}

func lastOf(c Contents) uint64 {
	if n := len(c.Entries); n > 0 {
		return c.Entries[n-1].GetIndex()
	}
	return c.Snapshot.GetIndex()
}

func (l *openLog) load() (Contents, error) {
	var c Contents
	id, err := l.get(keyID)
	if err != nil {
		return c, err
	}
	if len(id) == 8 {
		c.ID = binary.BigEndian.Uint64(id)
	}
	hard, snap := &raftpb.HardState{}, &raftpb.SnapshotMetadata{}
	if ok, err := l.message(keyHard, hard); err != nil {
		return c, err
	} else if ok {
		c.HardState = hard
	}
	if ok, err := l.message(keySnapshot, snap); err != nil {
		return c, err
	} else if ok {
		c.Snapshot = snap
	}
	c.Entries, err = l.entries(c.Snapshot.GetIndex())
	return c, err
}

// entries reads the entries after the snapshot, and what was left before it for slow followers.
func (l *openLog) entries(snapshot uint64) ([]*raftpb.Entry, error) {
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: []byte(prefixEntry), UpperBound: after(prefixEntry)})
	if err != nil {
		return nil, err
	}
	var out []*raftpb.Entry
	for ok := it.First(); ok; ok = it.Next() {
		e := &raftpb.Entry{}
		payload, err := unseal(it.Key(), it.Value())
		if err == nil {
			err = proto.Unmarshal(payload, e)
		}
		if err == nil && len(out) > 0 && e.GetIndex() != out[len(out)-1].GetIndex()+1 {
			err = fmt.Errorf("entry %d follows %d", e.GetIndex(), out[len(out)-1].GetIndex())
		}
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		out = append(out, e)
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return nil, err
	}
	if len(out) > 0 && out[0].GetIndex() > snapshot+1 {
		return nil, fmt.Errorf("entries %d to %d are missing", snapshot+1, out[0].GetIndex()-1)
	}
	return out, nil
}

// get is nil for a record that is absent.
func (l *openLog) get(key string) ([]byte, error) {
	value, closer, err := l.db.Get([]byte(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	payload, err := unseal([]byte(key), value)
	payload = append([]byte{}, payload...)
	return payload, errors.Join(err, closer.Close())
}

func (l *openLog) message(key string, m proto.Message) (bool, error) {
	payload, err := l.get(key)
	if err != nil || payload == nil {
		return false, err
	}
	return true, proto.Unmarshal(payload, m)
}

// Save implements Log.
func (l *openLog) Save(b Batch) error {
	w := l.db.NewBatch()
	if err := l.fill(w, b, l.getLast()); err != nil {
		return l.wrap("write", errors.Join(err, w.Close()))
	}
	if err := l.commit(w, b.Sync); err != nil {
		return l.wrap("write", err)
	}
	if n := len(b.Entries); n > 0 {
		l.setLast(b.Entries[n-1].GetIndex())
	}
	return nil
}

// fill puts the batch into w; last is the index of the last entry before it.
func (l *openLog) fill(w *pebble.Batch, b Batch, last uint64) error {
	if b.ID != 0 {
		if err := put(w, []byte(keyID), binary.BigEndian.AppendUint64(nil, b.ID)); err != nil {
			return err
		}
	}
	if b.HardState != nil {
		if err := putMessage(w, []byte(keyHard), b.HardState); err != nil {
			return err
		}
	}
	if len(b.Entries) > 0 && b.Entries[0].GetIndex() <= last {
		if err := w.DeleteRange(entryKey(b.Entries[0].GetIndex()), after(prefixEntry), nil); err != nil {
			return err
		}
	}
	for _, e := range b.Entries {
		if err := putMessage(w, entryKey(e.GetIndex()), e); err != nil {
			return err
		}
	}
	return nil
}

// commit writes w, and closes it.
func (l *openLog) commit(w *pebble.Batch, sync bool) error {
	if !sync {
		return errors.Join(w.Commit(pebble.NoSync), w.Close())
	}
	began := time.Now()
	err := w.Commit(pebble.Sync)
	l.synced(time.Since(began))
	return errors.Join(err, w.Close())
}

// Checkpoint implements Log.
func (l *openLog) Checkpoint(s Snapshot, compact uint64) error {
	return l.replace(s, func(w *pebble.Batch) error {
		return w.DeleteRange([]byte(prefixEntry), entryKey(compact+1), nil)
	})
}

// Install implements Log.
func (l *openLog) Install(s Snapshot, b Batch) error {
	err := l.replace(s, func(w *pebble.Batch) error {
		if err := w.DeleteRange([]byte(prefixEntry), after(prefixEntry), nil); err != nil {
			return err
		}
		return l.fill(w, b, 0)
	})
	if err == nil {
		l.setLast(lastOf(Contents{Entries: b.Entries, Snapshot: s.Meta}))
	}
	return err
}

func (l *openLog) replace(s Snapshot, also func(w *pebble.Batch) error) error {
	index := s.Meta.GetIndex()
	// Step 1: the parts, under their own index, where nobody looks yet. They need no sync of their own: the log of the
	// database is one, so the sync of step 2 makes them durable with it.
	n := uint32(0)
	for part, err := range s.Parts {
		if err != nil {
			return l.wrap("write a snapshot to", err)
		}
		key := partKey(index, n)
		if err := l.db.Set(key, seal(key, part), pebble.NoSync); err != nil {
			return l.wrap("write a snapshot to", err)
		}
		n++
	}
	// Step 2: the pointer moves, older parts and what it makes superfluous go, in one synced batch.
	w := l.db.NewBatch()
	err := errors.Join(
		putMessage(w, []byte(keySnapshot), s.Meta),
		w.DeleteRange([]byte(prefixPart), partPrefix(index), nil),
		w.DeleteRange(partKey(index, n), after(prefixPart), nil),
		also(w),
	)
	if err != nil {
		return l.wrap("write a snapshot to", errors.Join(err, w.Close()))
	}
	if err := l.commit(w, true); err != nil {
		return l.wrap("write a snapshot to", err)
	}
	return nil
}

// Parts implements Log.
func (l *openLog) Parts() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		if err := l.parts(func(p []byte) bool { return yield(p, nil) }); err != nil {
			yield(nil, l.wrap("read the snapshot in", err))
		}
	}
}

func (l *openLog) parts(yield func([]byte) bool) error {
	meta := &raftpb.SnapshotMetadata{}
	if ok, err := l.message(keySnapshot, meta); err != nil || !ok {
		return err
	}
	it, err := l.db.NewIter(&pebble.IterOptions{
		LowerBound: partPrefix(meta.GetIndex()), UpperBound: partPrefix(meta.GetIndex() + 1),
	})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		payload, err := unseal(it.Key(), it.Value())
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if !yield(append([]byte(nil), payload...)) {
			break
		}
	}
	return errors.Join(it.Error(), it.Close())
}

// Close implements Log.
func (l *openLog) Close() error { return l.db.Close() }

func (l *openLog) getLast() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

func (l *openLog) setLast(i uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = i
}

func put(w *pebble.Batch, key, payload []byte) error { return w.Set(key, seal(key, payload), nil) }

func putMessage(w *pebble.Batch, key []byte, m proto.Message) error {
	payload, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return put(w, key, payload)
}

// after is the first key behind all that begin with the prefix.
func after(prefix string) []byte {
	b := []byte(prefix)
	b[len(b)-1]++
	return b
}

// reporter passes Pebble's complaints on. Its chatter about compactions is nobody's business.
type reporter struct{ log *slog.Logger }

func (p reporter) Infof(string, ...any) {}

func (p reporter) Errorf(format string, args ...any) {
	p.log.Error("log storage reports an error", "error", fmt.Sprintf(format, args...))
}

// Fatalf is called when going on would lose data, such as after a failed sync. A panic ends the process by way of its
// group, which names it; a failed sync must never be tried again on the same file.
func (p reporter) Fatalf(format string, args ...any) {
	//nolint:forbidigo // a log that cannot be written must end the process at once
	panic(fmt.Errorf("log storage cannot go on: "+format, args...))
}
