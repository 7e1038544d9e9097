package attach_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/agenttest"
	"github.com/shoalproject/shoal/services/agent/internal/attach"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

// place is the one namespace that there is.
type place struct{ there atomic.Bool }

func (p *place) Attached(string) bool { return p.there.Load() }

// TestGuestOfAnAgent: a container of another tool is never made, is found again by the next life of the agent as it was, has ended when
// it is gone, and is forgotten when it is removed. Containers of our own are the executor's as ever.
func TestGuestOfAnAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, folder, p := agenttest.NewHost("w1", run.NewRand(1)), t.TempDir(), &place{}
		p.there.Store(true)
		life := func() *attach.Runtime { return attach.Over(host.Env(testx.Env(t)).Executor, folder, p) }
		expect := func(r *attach.Runtime, want ...string) {
			t.Helper()
			found, err := r.List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range found {
				ended := f.Exit != nil && f.Exit.Code == 0
				got = append(got, fmt.Sprint(f.ID, " ", f.Origin.Task, " ", f.Presence == task.Running, " ", f.Presence == task.Ended && ended))
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("found %q, want %q", got, want)
			}
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		r := life()
		guest := container.Spec{ID: "g.0", Origin: container.Origin{Task: "g"}, Container: &typesv1.ContainerSpec{
			Attach: &typesv1.AttachedNamespace{Path: "/run/netns/blue"}}}
		must(r.Prepare(t.Context(), guest))
		must(r.Prepare(t.Context(), container.Spec{ID: "own.0", Origin: container.Origin{Task: "own"}, Container: &typesv1.ContainerSpec{Image: "micro"}}))
		expect(r, "g.0 g false false", "own.0 own false false")
		for _, id := range []string{"g.0", "own.0"} {
			_, err := r.Start(t.Context(), id)
			must(err)
		}
		r = life()
		expect(r, "g.0 g true false", "own.0 own true false")
		if probe, err := r.ImageProbe(t.Context(), ""); probe != nil || err != nil {
			t.Errorf("probe %v, %v", probe, err)
		}
		must(r.KeepOutput(t.Context(), "g.0"))
		must(r.EndCommands(t.Context(), "g.0"))
		waited := make(chan error, 1)
		go func() {
			exit, err := r.Wait(t.Context(), "g.0")
			if exit.Code != 0 {
				t.Errorf("exit %v", exit)
			}
			waited <- err
		}()
		synctest.Wait()
		select {
		case err := <-waited:
			t.Errorf("it is there, and is said to have ended: %v", err)
		default:
		}
		p.there.Store(false)
		must(<-waited)
		expect(r, "g.0 g false true", "own.0 own true false")
		must(r.Sweep(t.Context(), func(id string) bool { return true }))
		_, err := r.Remove(t.Context(), "g.0", container.Stop{})
		must(err)
		_, err = r.Remove(t.Context(), "own.0", container.Stop{})
		must(err)
		expect(r)
		if containers := host.Containers(); len(containers) != 0 {
			t.Errorf("containers left: %v", containers)
		}
	})
}
