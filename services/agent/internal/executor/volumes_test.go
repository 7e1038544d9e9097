package executor

import (
	"slices"
	"strings"
	"testing"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// TestVolumeInUse: a volume that a container uses, begun or not, is listed with its task and not removed; once the container has
// ended it is.
func TestVolumeInUse(t *testing.T) {
	r := newRig(t)
	s := r.spec("db.0", "wait")
	s.Log.Service, s.Origin.Slot = "db", 2
	s.Container.Mounts = []*typesv1.Mount{{Source: "db.2.data", Target: "/data", Volume: &typesv1.VolumeOptions{Subpath: "."}}}
	s.Volumes = map[string]container.Volume{"db.2.data": {Service: "db", Slot: 2, Incarnation: "i1"}}
	inUse := func(when string) {
		t.Helper()
		all, err := r.Volumes(t.Context())
		if err != nil || len(all) != 1 || all[0].GetSlot() != 2 || all[0].GetIncarnation() != "i1" || !slices.Equal(all[0].GetUsers(), []string{"db.2"}) {
			t.Errorf("%s: %v, %v", when, all, err)
		}
		if err := r.RemoveVolume(t.Context(), "db.2.data"); !errs.Is(err, errs.Precondition) || !strings.Contains(err.Error(), "in use by db.2") {
			t.Errorf("%s: removed: %v", when, err)
		}
	}
	if err := r.Prepare(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	inUse("prepared")
	if _, err := r.Start(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	inUse("running")
	if _, err := r.Remove(t.Context(), s.ID, container.Stop{}); err != nil {
		t.Fatal(err)
	}
	if err := r.RemoveVolume(t.Context(), "db.2.data"); err != nil {
		t.Errorf("after its end: %v", err)
	}
	if err := r.RemoveVolume(t.Context(), "db.2.data"); !errs.Is(err, errs.NotFound) {
		t.Errorf("again: %v", err)
	}

	bad := r.spec("bad.0", "wait")
	bad.Container.Mounts = []*typesv1.Mount{{Source: "../../out", Target: "/data"}} // as placeholders may have made it
	if err := r.Prepare(t.Context(), bad); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "is no name of a volume") {
		t.Errorf("a name that leads out: %v", err)
	}
}
