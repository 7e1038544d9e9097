package attach

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	tasksv1 "github.com/containerd/containerd/api/services/tasks/v1"
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
	var found []string
	pid := uint32(0)
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
			found, pid = append(found, space+"/"+c.ID), r.GetProcess().GetPid()
		}
	}
	switch len(found) {
	case 0:
		return "", errs.New(errs.NotFound, "no container of another tool whose id begins with %q runs in this machine's containerd", id)
	case 1:
		return fmt.Sprintf("/proc/%d/ns/net", pid), nil
	}
	return "", errs.New(errs.Precondition, "several containers have an id that begins with %q: %s", id, strings.Join(found[:min(5, len(found))], ", "))
}
