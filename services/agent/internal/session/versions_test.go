package session

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// tomorrow is a field that the next version has and this one has never heard of.
func tomorrow() []byte {
	return protowire.AppendString(protowire.AppendTag(nil, 4242, protowire.BytesType), "of the next version")
}

// TestDispatcherOfTheNextVersion: what it says that this version does not know is passed over, the session goes on, and the
// unknown parts of a spec reach the machine whole, for its journal and the version that it is upgraded to.
func TestDispatcherOfTheNextVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		news, spec := &dispatcherv1.SessionResponse{}, &typesv1.TaskSpec{}
		news.ProtoReflect().SetUnknown(tomorrow())
		spec.ProtoReflect().SetUnknown(tomorrow())
		d := &dispatcher{first: []*dispatcherv1.SessionResponse{
			news,
			{Message: &dispatcherv1.SessionResponse_Assignment{Assignment: &dispatcherv1.Assignment{
				Full: true, Tasks: []*dispatcherv1.AssignedTask{{TaskId: "t1", Spec: spec}},
			}}},
		}}
		r := newRig(t, map[string]*dispatcher{"d1:1": d})
		close(r.machine.adopted)
		pass(t, 10*time.Second)
		if d.sessions() != 1 || len(r.machine.taken) != 1 {
			t.Fatalf("%d sessions, %d assignments; want one of each", d.sessions(), len(r.machine.taken))
		}
		if got := r.machine.taken[0].GetTasks()[0].GetSpec().ProtoReflect().GetUnknown(); !bytes.Equal(got, tomorrow()) {
			t.Errorf("of a spec of the next version the machine has %q", got)
		}
	})
}

// TestDispatcherOfTheVersionBefore: a welcome without the fields that came later has the defaults in their place.
func TestDispatcherOfTheVersionBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &dispatcher{terse: true}
		r := newRig(t, map[string]*dispatcher{"d1:1": d})
		close(r.machine.adopted)
		pass(t, 10*time.Second)
		d.set(func() {
			if n := len(d.beats); n < 18 || n > 23 || len(d.hellos) != 1 {
				t.Errorf("%d heartbeats in 10 s and %d sessions, wanted about 20 in one", n, len(d.hellos))
			}
		})
	})
}
