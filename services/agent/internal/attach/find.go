package attach

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	tasksv1 "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/shoalproject/shoal/internal/errs"
)

// findWait bounds a search.
const findWait = 10 * time.Second

// Finder finds containers of other tools in a machine's containerd: those of all of its namespaces but our own.
func Finder(socket, own string) func(ctx context.Context, id string) (path string, err error) {
	return func(ctx context.Context, id string) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, findWait)
		defer cancel()
		client, err := containerd.New(socket, containerd.WithTimeout(time.Second))
		if err != nil {
			return "", errs.New(errs.Unavailable, "connect to containerd at %s: %w", socket, err)
		}
		defer client.Close()
		return find(ctx, client, own, id)
	}
}

func find(ctx context.Context, client *containerd.Client, own, id string) (string, error) {
	all, err := client.NamespaceService().List(ctx)
	if err != nil {
		return "", errs.New(errs.Unavailable, "list the namespaces of containerd: %w", err)
	}
	var found []candidate
	for _, space := range slices.DeleteFunc(all, func(n string) bool { return n == own }) {
		ctx := namespaces.WithNamespace(ctx, space)
		list, err := client.ContainerService().List(ctx, fmt.Sprintf("id~=^%s", regexp.QuoteMeta(id)))
		if err != nil {
			return "", errs.New(errs.Unavailable, "list the containers of containerd's namespace %s: %w", space, err)
		}
		for _, c := range list {
			r, err := client.TaskService().Get(ctx, &tasksv1.GetRequest{ContainerID: c.ID})
			if errdefs.IsNotFound(errgrpc.ToNative(err)) {
				continue // it does not run
			}
			if err != nil {
				return "", errs.New(errs.Unavailable, "find the process of container %s: %w", c.ID, err)
			}
			found = append(found, candidate{space, c.ID, r.GetProcess()})
		}
	}
	pid, err := choose(found, id)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("/proc/%d/ns/net", pid), nil
}

// candidate is a container whose id begins with what is looked for.
type candidate struct {
	space, id string
	process   *task.Process
}

// choose gives the process of the one container that is meant: the one that has just this id, or else the only one whose id begins
// so. The process of one that has ended is nobody's any more, or another's.
func choose(all []candidate, id string) (pid uint32, err error) {
	alive := slices.DeleteFunc(all, func(c candidate) bool {
		return c.process.GetStatus() != task.Status_RUNNING && c.process.GetStatus() != task.Status_PAUSED
	})
	if exact := slices.DeleteFunc(slices.Clone(alive), func(c candidate) bool { return c.id != id }); len(exact) > 0 {
		alive = exact
	}
	switch len(alive) {
	case 0:
		return 0, errs.New(errs.NotFound, "no container of another tool whose id begins with %q runs in this machine's containerd", id)
	case 1:
		return alive[0].process.GetPid(), nil
	}
	var names []string
	for _, c := range alive[:min(5, len(alive))] {
		names = append(names, c.space+"/"+c.id)
	}
	return 0, errs.New(errs.Precondition, "several containers have an id that begins with %q: %s", id, strings.Join(names, ", "))
}
