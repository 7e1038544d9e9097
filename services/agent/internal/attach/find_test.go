package attach

import (
	"testing"

	"github.com/containerd/containerd/api/types/task"

	"github.com/shoalproject/shoal/internal/errs"
)

// TestChoose: a container is found by the beginning of its id, if only one that lives has it; a whole id means that one, whatever others
// begin with it.
func TestChoose(t *testing.T) {
	of := func(space, id string, pid uint32, status task.Status) candidate {
		return candidate{space, id, &task.Process{Pid: pid, Status: status}}
	}
	all := []candidate{
		of("moby", "db", 1, task.Status_RUNNING), of("moby", "db2", 2, task.Status_RUNNING), of("default", "web1", 3, task.Status_PAUSED),
		of("default", "web2", 4, task.Status_STOPPED), of("default", "web3", 5, task.Status_CREATED), of("default", "web4", 6, task.Status_UNKNOWN),
		of("k8s.io", "app", 7, task.Status_STOPPED), of("moby", "app1", 8, task.Status_RUNNING), of("default", "cat", 9, task.Status_RUNNING),
		of("moby", "cat", 10, task.Status_RUNNING),
	}
	for id, want := range map[string]struct {
		pid  uint32
		kind errs.Kind
	}{
		"db": {1, 0}, "db2": {2, 0}, "web": {3, 0}, "web2": {0, errs.NotFound}, "app": {8, 0}, "d": {0, errs.Precondition}, "cat": {0, errs.Precondition},
		"none": {0, errs.NotFound},
	} {
		var begin []candidate
		for _, c := range all {
			if len(c.id) >= len(id) && c.id[:len(id)] == id {
				begin = append(begin, c)
			}
		}
		if pid, err := choose(begin, id); pid != want.pid || want.kind != 0 && !errs.Is(err, want.kind) || want.kind == 0 && err != nil {
			t.Errorf("%s is the container of process %d, %v; want %+v", id, pid, err, want)
		}
	}
}
