package machine_test

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"

	"github.com/shoalproject/shoal/cli/internal/machine"
	"github.com/shoalproject/shoal/internal/contexts"
)

func (h *host) systemctlCalls() []string {
	return slices.DeleteFunc(slices.Clone(h.calls), func(c string) bool { return !strings.HasPrefix(c, "systemctl ") })
}

// Containers are started by their own init: the files alone are written, on a machine that may lack everything else.
func TestStartNoneWritesTheFilesAlone(t *testing.T) {
	inCluster(t, func(t *testing.T, h *host, ca *authority) {
		h.found = `[{"check":"containerd","grade":"fault","what":"there is no socket"}]`
		req := machine.Join{Token: ca.worker.String(), Address: "10.0.0.9", Advertise: "192.0.2.7", Start: machine.StartNone}
		done, err := h.machine().Join(t.Context(), req)
		if err != nil || len(done.Roles) != 2 {
			t.Fatalf("%+v, %v", done, err)
		}
		h.has(t, "/etc/shoal/agent.yaml", "192.0.2.7")
		if calls := h.systemctlCalls(); len(calls) > 0 {
			t.Errorf("it called %v", calls)
		}
		before, calls := h.files(t), ca.calls
		again, err := h.machine().Join(t.Context(), req)
		if err != nil || len(again.Roles) != 0 || len(again.Had) != 2 || ca.calls != calls {
			t.Errorf("join at the next start: %+v, %v", again, err)
		}
		req.Token = enroll.NewToken(h.env.Rand, []byte("other")).String()
		if _, err := h.machine().Join(t.Context(), req); !errs.Is(err, errs.Precondition) {
			t.Errorf("join of another cluster: %v", err)
		}
		if diff := cmp.Diff(before, h.files(t)); diff != "" {
			t.Error(diff)
		}
		req = machine.Join{Token: ca.manager.String(), Address: "10.0.0.9", Advertise: "everywhere", Roles: []authzv1.Role{store}, Start: machine.StartNone}
		if _, err := h.machine().Join(t.Context(), req); err == nil || !strings.Contains(err.Error(), `"everywhere" is no IP address`) {
			t.Errorf("got %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		req := machine.Init{Operator: "ada", Advertise: "10.0.0.1", Contexts: contexts.New(h.env.Files, configFolder), Start: machine.StartNone}
		done, err := h.machine().Init(t.Context(), req)
		if err != nil || done.Token != "SHOAL-1-worker" || done.Address != "10.0.0.1:2377" || done.Context != "default" {
			t.Errorf("%+v, %v", done, err)
		}
		if c, err := req.Contexts.Pick(""); err != nil || c.Cluster != "c1" {
			t.Errorf("the context in use is %+v, %v", c, err)
		}
		if calls := h.systemctlCalls(); len(calls) > 0 {
			t.Errorf("it called %v", calls)
		}
		before := h.files(t)
		if again, err := h.machine().Init(t.Context(), req); err != nil || !again.Already || again.Machine != "m1" {
			t.Errorf("init at the next start: %+v, %v", again, err)
		}
		if diff := cmp.Diff(before, h.files(t)); diff != "" {
			t.Error(diff)
		}
	})
}

// full is a disk on which a number of files find room.
type full struct {
	run.Files
	left int
}

func (f *full) Write(name string, data []byte, mode fs.FileMode) error {
	if f.left--; f.left < 0 {
		return &fs.PathError{Op: "write", Path: name, Err: errFull}
	}
	return f.Files.Write(name, data, mode)
}

// Remove makes room.
func (f *full) Remove(name string) error {
	if _, err := f.Stat(name); err == nil {
		f.left = max(f.left, 0) + 1
	}
	return f.Files.Remove(name)
}

// Wherever the disk is full, all is as it was: nothing but what was there, and no unit.
func TestAFullDiskLeavesNothingBehind(t *testing.T) {
	for room, done := 0, false; !done; room++ {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t)
			if err := h.env.Files.Write("/etc/shoal/ca.yaml", []byte("log_level: debug\n"), 0o640); err != nil {
				t.Fatal(err)
			}
			before := h.files(t)
			roomy := h.env.Files
			h.env.Files = &full{Files: roomy, left: room}
			_, err := h.initialize(t.Context(), &gateway{})
			h.env.Files = roomy
			if err == nil {
				if done = true; room < 10 {
					t.Errorf("init found room for all in %d files", room)
				}
				return
			}
			if !strings.Contains(err.Error(), "no space left") {
				t.Errorf("with room for %d files: %v", room, err)
			}
			if diff := cmp.Diff(before, h.files(t)); diff != "" {
				t.Errorf("with room for %d files: %s", room, diff)
			}
			h.has(t, "/etc/shoal/ca.yaml", "log_level: debug")
			if len(h.enabled)+len(h.active) > 0 {
				t.Errorf("with room for %d files units run: %v", room, h.enabled)
			}
		})
	}
}
