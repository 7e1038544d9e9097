package bootid_test

import (
	"io/fs"
	"strings"
	"sync"
	"testing"

	"github.com/shoalproject/shoal/internal/bootid"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
)

const file = "/run/shoal/boot-id"

// together answers the first two reads only when both have come, as when systemd starts two processes at once.
type together struct {
	*testx.Files
	first *sync.WaitGroup
	reads int
}

func (f *together) Read(name string) ([]byte, error) {
	data, err := f.Files.Read(name)
	if f.reads++; f.reads == 1 {
		f.first.Done()
		f.first.Wait()
	}
	return data, err
}

// A process with another id than its machine's file has would say at its next start that the machine was off.
func TestProcessesThatStartTogetherAgree(t *testing.T) {
	env := testx.Env(t)
	disk, ids := testx.NewFiles(), make([]string, 2)
	var first, done sync.WaitGroup
	first.Add(len(ids))
	for i := range ids {
		done.Go(func() {
			own := env
			own.Files = &together{Files: disk, first: &first}
			id, err := bootid.Of(own, file)
			if err != nil {
				t.Error(err)
			}
			ids[i] = id
		})
	}
	done.Wait()
	env.Files = disk
	later, err := bootid.Of(env, file)
	if err != nil || len(later) != 32 || ids[0] != later || ids[1] != later {
		t.Errorf("two started with %q, a later one with %q: %v", ids, later, err)
	}
}

func TestAFileThatSaysNothingIsToldAndNotReplaced(t *testing.T) {
	env := testx.Env(t)
	if err := env.Files.Write(file, []byte("\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if id, err := bootid.Of(env, file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %q, %v", id, err)
	}
	env.Files = broken{env.Files}
	if id, err := bootid.Of(env, file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %q, %v", id, err)
	}
}

type broken struct{ run.Files }

func (broken) Read(string) ([]byte, error) { return nil, fs.ErrPermission }
