package executor

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// TestAgainstBareClient prints what fifty containers cost beside a client that does nothing else, interleaved. It fails
// only when ours take more than twice as long, which is the promise.
//
//	go test -run AgainstBareClient -v ./internal/executor
func TestAgainstBareClient(t *testing.T) {
	if testing.Short() || !testing.Verbose() {
		t.Skip("a measurement: run it alone, with -v")
	}
	r := newRig(t)
	warm := r.spec("warm.0")
	r.run(t, warm)
	if _, err := r.Remove(t.Context(), warm.ID, container.Stop{}); err != nil {
		t.Fatal(err)
	}
	const n = 50
	var ours, bare time.Duration
	for round := range 3 {
		o, b := r.fifty(t, n, round), r.bareFifty(t, n, round)
		t.Logf("round %d: ours %v, bare %v", round, o, b)
		ours, bare = ours+o, bare+b
	}
	if ours > 2*bare {
		t.Errorf("ours took %v, a bare client %v", ours, bare)
	}
}

func numbers(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

func (r *rig) fifty(t *testing.T, n, round int) time.Duration {
	t.Helper()
	began := time.Now()
	err := run.Each(t.Context(), n, numbers(n), func(ctx context.Context, i int) error {
		s := r.spec(fmt.Sprintf("r%dc%d.0", round, i))
		if err := r.Prepare(ctx, s); err != nil {
			return err
		}
		_, err := r.Start(ctx, s.ID)
		return err
	})
	took := time.Since(began)
	if err != nil {
		t.Fatal(err)
	}
	err = run.Each(t.Context(), 8, numbers(n), func(ctx context.Context, i int) error {
		_, err := r.Remove(ctx, fmt.Sprintf("r%dc%d.0", round, i), container.Stop{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return took
}

func (r *rig) bareFifty(t *testing.T, n, round int) time.Duration {
	t.Helper()
	client, err := containerd.New(r.cfg.Socket, containerd.WithDefaultNamespace(r.cfg.Namespace))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx := namespaces.WithNamespace(t.Context(), r.cfg.Namespace)
	image, err := client.GetImage(ctx, r.registry.host+"/repo:1")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err = run.Each(ctx, 8, numbers(n), func(ctx context.Context, i int) error {
		id := fmt.Sprintf("bare%dc%d", round, i)
		c, err := client.NewContainer(ctx, id, containerd.WithImage(image), containerd.WithNewSnapshot(id, image),
			containerd.WithNewSpec(oci.WithImageConfig(image), func(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
				s.Version = specVersion
				return nil
			}))
		if err != nil {
			return err
		}
		task, err := c.NewTask(ctx, cio.LogFile(filepath.Join(r.cfg.Logs, id+".log")))
		if err != nil {
			return err
		}
		return task.Start(ctx)
	})
	took := time.Since(began)
	if err != nil {
		t.Fatal(err)
	}
	err = run.Each(ctx, 8, numbers(n), func(ctx context.Context, i int) error {
		c, err := client.LoadContainer(ctx, fmt.Sprintf("bare%dc%d", round, i))
		if err != nil {
			return err
		}
		task, err := c.Task(ctx, nil)
		if err != nil {
			return err
		}
		if _, err := task.Delete(ctx, containerd.WithProcessKill); err != nil {
			return err
		}
		return c.Delete(ctx, containerd.WithSnapshotCleanup)
	})
	if err != nil {
		t.Fatal(err)
	}
	return took
}
