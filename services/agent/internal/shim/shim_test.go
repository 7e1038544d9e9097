package shim

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	taskv2 "github.com/containerd/containerd/api/runtime/task/v2"
	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
)

// What is left of one containerd or the other leads to the shim, in its own language. The services that these embed are nil: nothing but Wait is asked.
type (
	speaks2 struct{ taskv2.TTRPCTaskService }
	speaks3 struct{ taskv3.TTRPCTaskService }
)

func (speaks2) Wait(_ context.Context, r *taskv2.WaitRequest) (*taskv2.WaitResponse, error) {
	return &taskv2.WaitResponse{ExitStatus: uint32(40 + len(r.GetID()))}, nil
}

func (speaks3) Wait(_ context.Context, r *taskv3.WaitRequest) (*taskv3.WaitResponse, error) {
	return &taskv3.WaitResponse{ExitStatus: uint32(50 + len(r.GetID()))}, nil
}

func TestWaitIsAskedAsTheShimSpeaks(t *testing.T) {
	for name, tc := range map[string]struct {
		file, text string // the address follows
		serve      func(*ttrpc.Server)
		want       int32
	}{
		"as 1.6 leaves it": {"address", "", func(s *ttrpc.Server) { taskv2.RegisterTTRPCTaskService(s, speaks2{}) }, 43},
		"old shim, new containerd": {
			"bootstrap.json", `{"version":2,"protocol":"ttrpc","address":"`,
			func(s *ttrpc.Server) { taskv2.RegisterTTRPCTaskService(s, speaks2{}) }, 43,
		},
		"as 2.1 leaves it": {
			"bootstrap.json", `{"version":3,"protocol":"ttrpc","address":"`,
			func(s *ttrpc.Server) { taskv3.RegisterTTRPCTaskService(s, speaks3{}) }, 53,
		},
	} {
		t.Run(name, func(t *testing.T) {
			bundle := t.TempDir()
			socket := filepath.Join(bundle, "s")
			text := "unix://" + socket
			if tc.text != "" {
				text = tc.text + text + `"}`
			}
			if err := os.WriteFile(filepath.Join(bundle, tc.file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Wait(t.Context(), bundle, "t.0"); err == nil {
				t.Error("nobody serves, and no error")
			}
			server, err := ttrpc.NewServer()
			if err != nil {
				t.Fatal(err)
			}
			tc.serve(server)
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- server.Serve(context.WithoutCancel(t.Context()), l) }()
			if code, err := Wait(t.Context(), bundle, "t.0"); err != nil || code != tc.want {
				t.Errorf("%d, %v; want %d", code, err, tc.want)
			}
			if err := server.Close(); err != nil {
				t.Error(err)
			}
			if err := <-done; !errors.Is(err, ttrpc.ErrServerClosed) {
				t.Error(err)
			}
		})
	}
}

// The process whose child it is must work in the container's folder: a process id that another has by now leads nowhere.
func TestBundleIsOfThisContainer(t *testing.T) {
	child := exec.CommandContext(t.Context(), "cat")
	in, err := child.StdinPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(in.Close(), child.Wait()) }()
	own, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	pid := int64(child.Process.Pid)
	if got := Bundle(pid, filepath.Base(own)); got != own {
		t.Errorf("%q, want %q", got, own)
	}
	if got := Bundle(pid, "other.0"); got != "" {
		t.Errorf("another container's shim is taken for it: %q", got)
	}
}
