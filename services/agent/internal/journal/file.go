package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"google.golang.org/protobuf/proto"

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
const lockWait = 3 * time.Second

// file is the journal of a real machine: one bbolt file.
type file struct{ db *bbolt.DB }

// Open opens the journal at path, or begins a new one. A file that is damaged is put aside as <path>.damaged: the
// containers themselves know enough to go on, and a machine that waits for a person is worse.
func Open(path string) (Journal, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	db, err := open(path)
	if errors.Is(err, berrors.ErrInvalid) || errors.Is(err, berrors.ErrChecksum) {
		if err := os.Rename(path, path+".damaged"); err != nil {
			return nil, fmt.Errorf("put the damaged journal aside: %w", err)
		}
		db, err = open(path)
	}
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("open journal %s: another agent holds it; stop that one first", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", path, err)
	}
	return &file{db}, nil
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

func (f *file) Close() error { return f.db.Close() }

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
