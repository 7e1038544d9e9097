package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/run"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// The buckets of format 1. The last three are keyed by task id.
const (
	bucketMeta     = "meta" // cluster, generation, blocks
	bucketAssigned = "assigned"
	bucketObserved = "observed"
	bucketAcked    = "acked" // present or not
)

// lockWait is how long a second agent waits for the file: long enough for a dying one to let go.
const lockWait, lockPause = 3 * time.Second, 50 * time.Millisecond

var errHeld = errors.New("another agent holds it; stop that one first")

// file is the journal of a real machine: one bbolt file.
type file struct {
	db   *bbolt.DB
	lock *os.File // held as long as the journal is open
}

// Open opens the journal at path, or begins a new one. A file that is damaged is put aside as <path>.damaged, which is told:
// the containers themselves know enough to go on, and a machine that waits for a person is worse.
func Open(path string, log *slog.Logger) (Journal, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	// What is counted and put aside below is that of one agent at a time: a second one would take the first for dead.
	lock, err := hold(path + lockSuffix)
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", path, err)
	}
	f, err := openHeld(path, log)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	f.lock = lock
	return f, nil
}

// hold waits a little for the file that says whose the journal is.
func hold(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for left := lockWait; ; left -= lockPause {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return nil, errors.Join(err, f.Close())
		case left <= 0:
			return nil, errors.Join(errHeld, f.Close())
		}
		_ = run.Sleep(context.Background(), lockPause)
	}
}

func openHeld(path string, log *slog.Logger) (*file, error) {
	f, err := sound(path)
	if damage, ok := errors.AsType[*damageError](err); ok {
		log.Error("the journal is damaged and was put aside; going on by what runs here", "file", path+asideSuffix, "damage", damage)
		if err := os.Rename(path, path+asideSuffix); err != nil {
			return nil, fmt.Errorf("put the damaged journal aside: %w", err)
		}
		f, err = sound(path)
	}
	if errors.Is(err, berrors.ErrTimeout) {
		err = errHeld
	}
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", path, err)
	}
	return f, nil
}

const (
	asideSuffix = ".damaged"
	lockSuffix  = ".lock"
	// triesSuffix is of the file that counts the agents that have died while they opened the journal: bbolt ends the process for
	// some damages, where nobody can stop it.
	triesSuffix = ".opening"
	// maxTries is how many may: a death there may also be a power cut.
	maxTries = 2
)

// damageError says that the file is no journal any more.
type damageError struct{ what any }

func (d *damageError) Error() string { return fmt.Sprint(d.what) }

// sound opens the file and reads all of it once.
func sound(path string) (f *file, err error) {
	tries, _ := os.ReadFile(path + triesSuffix) // mostly there is none
	if len(tries) >= maxTries {
		_ = os.Remove(path + triesSuffix) // or the next one finds this file damaged, too
		if _, err := os.Stat(path); err == nil {
			return nil, &damageError{fmt.Sprintf("%d agents in a row have died opening it", len(tries))}
		}
	}
	// A full disk must not keep an agent from opening its journal.
	_ = os.WriteFile(path+triesSuffix, append(tries, '.'), 0o600) //nolint:gosec // the path is the agent's own
	defer func() { err = errors.Join(err, ignoreGone(os.Remove(path+triesSuffix))) }()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // a file that is shorter than it says
	defer func() {
		if v := recover(); v != nil {
			f, err = nil, &damageError{v}
		}
	}()
	db, err := open(path)
	for _, damage := range []error{berrors.ErrInvalid, berrors.ErrChecksum, berrors.ErrVersionMismatch, berrors.ErrIncompatibleValue} {
		if errors.Is(err, damage) {
			return nil, &damageError{err}
		}
	}
	if err != nil {
		return nil, err
	}
	f = &file{db: db}
	if _, err := f.Load(context.Background()); err != nil {
		return nil, errors.Join(&damageError{err}, f.Close())
	}
	return f, nil
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func open(path string) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range []string{bucketMeta, bucketAssigned, bucketObserved, bucketAcked} {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func (f *file) Close() error {
	err := f.db.Close()
	if f.lock != nil {
		err = errors.Join(err, f.lock.Close())
	}
	return err
}

func (f *file) Load(context.Context) (State, error) {
	s := State{Tasks: map[string]Record{}}
	err := f.db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket([]byte(bucketMeta))
		s.Cluster = string(meta.Get([]byte("cluster")))
		if blocks := string(meta.Get([]byte("blocks"))); blocks != "" {
			s.Blocks = strings.Split(blocks, " ")
		}
		if data := meta.Get([]byte("generation")); data != nil {
			s.Generation = &typesv1.Version{}
			if err := proto.Unmarshal(data, s.Generation); err != nil {
				return err
			}
		}
		if err := loadTasks(tx, s.Tasks); err != nil {
			return err
		}
		return tx.Bucket([]byte(bucketAcked)).ForEach(func(id, _ []byte) error {
			r := s.Tasks[string(id)]
			r.Acked = true
			s.Tasks[string(id)] = r
			return nil
		})
	})
	if err != nil {
		return State{}, fmt.Errorf("read journal: %w", err)
	}
	return s, nil
}

func loadTasks(tx *bbolt.Tx, tasks map[string]Record) error {
	err := tx.Bucket([]byte(bucketAssigned)).ForEach(func(id, data []byte) error {
		r := Record{Task: &dispatcherv1.AssignedTask{}}
		err := proto.Unmarshal(data, r.Task)
		tasks[string(id)] = r
		return err
	})
	if err != nil {
		return err
	}
	return tx.Bucket([]byte(bucketObserved)).ForEach(func(id, data []byte) error {
		r := tasks[string(id)]
		r.Observed = &typesv1.TaskObserved{}
		err := proto.Unmarshal(data, r.Observed)
		tasks[string(id)] = r
		return err
	})
}

func (f *file) Save(_ context.Context, c Change) error {
	err := f.db.Update(func(tx *bbolt.Tx) error {
		if err := saveMeta(tx.Bucket([]byte(bucketMeta)), c); err != nil {
			return err
		}
		for id, r := range c.Put {
			if err := saveTask(tx, []byte(id), r); err != nil {
				return err
			}
		}
		for _, id := range c.Delete {
			for _, bucket := range []string{bucketAssigned, bucketObserved, bucketAcked} {
				if err := tx.Bucket([]byte(bucket)).Delete([]byte(id)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

func saveMeta(meta *bbolt.Bucket, c Change) error {
	if c.Cluster != "" {
		if err := meta.Put([]byte("cluster"), []byte(c.Cluster)); err != nil {
			return err
		}
	}
	if c.Generation == nil {
		return nil
	}
	data, err := proto.Marshal(c.Generation)
	if err != nil {
		return err
	}
	return errors.Join(meta.Put([]byte("generation"), data), meta.Put([]byte("blocks"), []byte(strings.Join(c.Blocks, " "))))
}

func saveTask(tx *bbolt.Tx, id []byte, r Record) error {
	for _, part := range []struct {
		bucket string
		has    bool
		value  proto.Message
	}{
		{bucketAssigned, r.Task != nil, r.Task},
		{bucketObserved, r.Observed != nil, r.Observed},
		{bucketAcked, r.Acked, nil},
	} {
		b := tx.Bucket([]byte(part.bucket))
		if !part.has {
			if err := b.Delete(id); err != nil {
				return err
			}
			continue
		}
		var data []byte
		if part.value != nil {
			var err error
			if data, err = proto.Marshal(part.value); err != nil {
				return err
			}
		}
		if err := b.Put(id, data); err != nil {
			return err
		}
	}
	return nil
}
