package usage_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalproject/shoal/services/agent/internal/usage"
)

// tree makes the files of a machine.
func tree(files map[string]string) fs.FS {
	out := fstest.MapFS{}
	for name, text := range files {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

func v2() map[string]string {
	return map[string]string{
		"cgroup.controllers":     "cpuset cpu io memory hugetlb pids rdma misc\n",
		"shoal/t.1/cpu.stat":     "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnr_periods 12\nnr_throttled 3\nthrottled_usec 700\n",
		"shoal/t.1/memory.stat":  "anon 40960000\nfile 12288000\nkernel_stack 49152\ninactive_anon 0\ninactive_file 8192000\nactive_file 4096000\n",
		"shoal/t.1/pids.current": "7\n", "shoal/t.1/memory.current": "53248000\n", "shoal/t.1/memory.max": "104857600\n",
		"shoal/t.1/io.stat": "8:16 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n253:0 rbytes=1 wbytes=2 rios=1 wios=1 dbytes=0 dios=0\n",
	}
}

func v1() map[string]string {
	return map[string]string{
		"cpuacct/shoal/t.1/cpuacct.usage":                 "1500000000\n",
		"memory/shoal/t.1/memory.usage_in_bytes":          "53248000\n",
		"memory/shoal/t.1/memory.limit_in_bytes":          "104857600\n",
		"memory/shoal/t.1/memory.stat":                    "cache 1\ninactive_file 1\ntotal_cache 12288000\ntotal_inactive_file 8192000\n",
		"pids/shoal/t.1/pids.current":                     "7\n",
		"blkio/shoal/t.1/blkio.throttle.io_service_bytes": "8:16 Read 4096\n8:16 Write 8192\n8:16 Sync 1\n8:16 Total 12288\n253:0 Read 1\n253:0 Write 2\nTotal 12291\n",
	}
}

// Both forms of control groups tell the same.
func TestGolden(t *testing.T) {
	want := usage.Figures{CPU: 1500 * time.Millisecond, Memory: 45056000, MemoryLimit: 104857600, PIDs: 7, Read: 4097, Written: 8194}
	for name, files := range map[string]map[string]string{"v1": v1(), "v2": v2()} {
		got, err := usage.New(tree(files)).Read("/shoal/t.1")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if groups := usage.New(tree(files)).Groups("/shoal"); len(groups) != 1 || groups[0] != "t.1" {
			t.Errorf("%s: groups %v, want t.1", name, groups)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

func TestNoLimit(t *testing.T) {
	two, one := v2(), v1()
	two["shoal/t.1/memory.max"] = "max\n"
	one["memory/shoal/t.1/memory.limit_in_bytes"] = "9223372036854771712\n"
	for name, files := range map[string]map[string]string{"v1": one, "v2": two} {
		if got, err := usage.New(tree(files)).Read("/shoal/t.1"); err != nil || got.MemoryLimit != 0 {
			t.Errorf("%s: limit %d, %v; want none", name, got.MemoryLimit, err)
		}
	}
}

// A machine without one controller still tells what the others count; a group that is gone is an error.
func TestMissing(t *testing.T) {
	two, one := v2(), v1()
	delete(two, "shoal/t.1/memory.current")
	delete(one, "memory/shoal/t.1/memory.usage_in_bytes")
	for name, files := range map[string]map[string]string{"v1": one, "v2": two} {
		r := usage.New(tree(files))
		if got, err := r.Read("/shoal/t.1"); err != nil || got.CPU != 1500*time.Millisecond || got.Memory != 0 {
			t.Errorf("%s without memory: %+v, %v", name, got, err)
		}
		if _, err := r.Read("/shoal/gone.1"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of a group that is gone: %v, want fs.ErrNotExist", name, err)
		}
	}
}

// The kernel's own account of a process agrees with what is read of its group.
func TestRealKernel(t *testing.T) {
	group := fmt.Sprintf("shoal-usage-test-%d", os.Getpid())
	dirs := makeGroup(t, group)
	cmd := exec.Command("sh", "-c", "read go; i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo done; read go")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = in.Write([]byte("\n"))
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	got, err := usage.Real().Read("/" + group)
	if err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	_ = cmd.Wait()
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if got.CPU < used*8/10-10*time.Millisecond || got.CPU > used*12/10+10*time.Millisecond {
		t.Errorf("the group says %s of processor time, the process %s", got.CPU, used)
	}
	if got.Memory <= 0 || got.Memory > 64<<20 || got.PIDs != 1 {
		t.Errorf("a shell alone: %d bytes, %d processes", got.Memory, got.PIDs)
	}
}

// makeGroup makes a group in whatever the machine has: a directory in the one tree, or in each of those that are read.
func makeGroup(t *testing.T, group string) (dirs []string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes a control group")
	}
	trees := []string{"cpuacct", "memory", "pids"}
	if _, err := os.Stat(filepath.Join(usage.Root, "cgroup.controllers")); err == nil {
		trees = []string{""}
	}
	for _, tree := range trees {
		dir := filepath.Join(usage.Root, tree, group)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Skipf("needs control groups: %v", err)
		}
		dirs = append(dirs, dir)
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
	}
	return dirs
}
