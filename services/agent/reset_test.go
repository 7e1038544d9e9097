package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/testx"
	"github.com/shoalproject/shoal/services/agent"
)

// TestResetLeavesNoMount: of a machine that is taken back no container's mount is left, also where containerd is not there to say
// which containers there were. Who then removes shoal's folders would else remove, through the mount, what people keep at its source.
func TestResetLeavesNoMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	env, folder, source := testx.Env(t), t.TempDir(), t.TempDir()
	pin, own := filepath.Join(folder, "run", "volumes", "t.0", "0"), filepath.Join(folder, "data", "volumes", "own", "t.0", "0", "data")
	config := fmt.Appendf(nil, "advertise: [192.0.2.1]\ndata: %[1]s/data\nrun_dir: %[1]s/run\ncontainerd_socket: %[1]s/none\n", folder)
	err := errors.Join(
		env.Files.Write("/etc/shoal/agent.yaml", config, 0o600), os.MkdirAll(pin, 0o700), os.MkdirAll(own, 0o700),
		os.WriteFile(filepath.Join(source, "kept"), nil, 0o600), unix.Mount(source, pin, "", unix.MS_BIND, ""),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(pin, unix.MNT_DETACH) }) // it should have gone
	if err := agent.ResetAny(context.WithoutCancel(t.Context()), env); err != nil {
		t.Error(err)
	}
	for _, path := range []string{pin, own} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left (%v)", path, err)
		}
	}
	if err := os.RemoveAll(folder); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(source, "kept")); err != nil {
		t.Errorf("with shoal's folders went what was mounted there: %v", err)
	}
}
