package sim_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/test/sim"
)

// withVolumes is a service whose slots have a volume each.
func withVolumes(t *testing.T, c *sim.Cluster, replicas uint64) {
	t.Helper()
	c.Ready(10 * time.Second)
	_, err := c.Operator.Services.CreateService(t.Context(), &controlv1.CreateServiceRequest{Spec: &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: "db"},
		Task: &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: "registry.test/micro:1.0.0", Mounts: []*typesv1.Mount{{
			Source: "data", Target: "/data", Volume: &typesv1.VolumeOptions{Scope: typesv1.VolumeScope_VOLUME_SCOPE_SLOT},
		}}}},
		Mode: &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: &replicas}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	c.Operator.Converge("db", replicas, 10*time.Second)
}

// volumesOf are the volumes as people see them: "db.1.data on m2 used by 1", and "m3 is missing".
func volumesOf(t *testing.T, c *sim.Cluster) string {
	t.Helper()
	resp, err := c.Operator.Volumes.ListVolumes(t.Context(), &logsv1.ListVolumesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, v := range resp.GetVolumes() {
		line := v.GetVolume().GetName() + " on " + v.GetHostname()
		switch {
		case v.GetUnseen():
			line += " unseen"
		case v.GetRecord() == nil:
			line += " of nobody"
		default:
			line += fmt.Sprintf(" used by %d", len(v.GetVolume().GetUsers()))
		}
		out = append(out, line)
	}
	for _, m := range resp.GetMissing() {
		out = append(out, m.GetHostname()+" is missing")
	}
	return strings.Join(out, "\n")
}

// homes are the machines of the slots' running tasks.
func homes(t *testing.T, c *sim.Cluster) map[uint64]string {
	t.Helper()
	out := map[uint64]string{}
	for _, l := range tasksOf(t, c, "db") {
		out[l.GetTask().GetDecided().GetSlot()] = c.MachineOf(l.GetTask().GetDecided().GetNodeId()).Name
	}
	return out
}

// Each slot comes back to the node that holds its volume: scaled down and up, and after its node was off, for which it waits
// with its reason; `volume ls` tells where all are, and names a node that can't be asked. A volume in use is not removed; one
// that is given up by force while its node is away lets the slot begin anew elsewhere, and what was left there is nobody's.
func TestSlotVolumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 5, apart())
		withVolumes(t, c, 3)
		before := homes(t, c)
		list := volumesOf(t, c)
		for slot, m := range before {
			if want := fmt.Sprintf("db.%d.data on %s used by 1", slot, m); !strings.Contains(list, want) {
				t.Fatalf("wanted %s in\n%s", want, list)
			}
		}
		for _, n := range []uint64{1, 3} {
			if err := c.Operator.Scale("db", n); err != nil {
				t.Fatal(err)
			}
			c.Operator.Converge("db", n, 30*time.Second)
		}
		if got := homes(t, c); fmt.Sprint(got) != fmt.Sprint(before) {
			t.Errorf("scaled down and up: %v, before %v", got, before)
		}
		rm := func(force bool) (*logsv1.RemoveVolumeResponse, error) {
			return c.Operator.Volumes.RemoveVolume(t.Context(), &logsv1.RemoveVolumeRequest{Name: "db.2.data", Force: force})
		}
		if _, err := rm(true); !errs.Is(err, errs.Precondition) || !strings.Contains(err.Error(), "in use by task db.2") {
			t.Errorf("removed while in use: %v", err)
		}

		off := c.Machine(before[2])
		off.PowerOff()
		c.Until("its slot says why it waits", 30*time.Second, func() string {
			tasks, err := c.Operator.ListTasks("db", false)
			if err != nil {
				return err.Error()
			}
			for _, l := range tasks {
				if strings.HasPrefix(l.GetReason(), "its volume db.2.data is on "+off.Name+", which is down") {
					return ""
				}
			}
			return "no reason yet"
		})
		if list := volumesOf(t, c); !strings.Contains(list, "db.2.data on "+off.Name+" unseen") || !strings.Contains(list, off.Name+" is missing") {
			t.Errorf("while %s is off:\n%s", off.Name, list)
		}
		if _, err := rm(false); !errs.Is(err, errs.Unavailable) {
			t.Errorf("removed on a node that is off: %v", err)
		}
		off.Restart()
		c.Operator.Converge("db", 3, time.Minute)
		if got := homes(t, c); fmt.Sprint(got) != fmt.Sprint(before) {
			t.Errorf("after the power cut: %v, before %v", got, before)
		}

		off.PowerOff()
		c.Until("it is known to be down", 30*time.Second, func() string {
			if _, err := rm(true); err != nil {
				return err.Error()
			}
			return ""
		})
		c.Operator.Converge("db", 3, time.Minute)
		if got := homes(t, c); got[2] == off.Name {
			t.Errorf("given up, and still there: %v", got)
		}
		off.Restart()
		c.Until("what is left is nobody's", time.Minute, func() string {
			if list := volumesOf(t, c); !strings.Contains(list, "db.2.data on "+off.Name+" of nobody") {
				return list
			}
			return ""
		})
		_, err := c.Operator.Volumes.RemoveVolume(t.Context(), &logsv1.RemoveVolumeRequest{Name: "db.2.data", Node: off.Name})
		if list := volumesOf(t, c); err != nil || strings.Contains(list, "of nobody") {
			t.Errorf("%v, and\n%s", err, list)
		}
	})
}

// Volumes of nodes are made with labels, found by name on whichever node they are, and removed.
func TestNodeVolumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 6, apart())
		c.Ready(10 * time.Second)
		v := c.Operator.Volumes
		_, err := v.CreateVolume(t.Context(), &logsv1.CreateVolumeRequest{Name: "data"})
		if !errs.Is(err, errs.Invalid) {
			t.Errorf("on no node: %v", err)
		}
		nodes := []string{"n01", "n02"}
		for _, n := range nodes {
			if _, err := v.CreateVolume(t.Context(), &logsv1.CreateVolumeRequest{Node: n, Name: "data", Labels: map[string]string{"tier": "db"}}); err != nil {
				t.Fatal(err)
			}
		}
		all, err := v.ListVolumes(t.Context(), &logsv1.ListVolumesRequest{Nodes: nodes[:1]})
		if err != nil || len(all.GetVolumes()) != 1 || all.GetVolumes()[0].GetVolume().GetLabels()["tier"] != "db" {
			t.Errorf("%v, %v", all, err)
		}
		if _, err := v.RemoveVolume(t.Context(), &logsv1.RemoveVolumeRequest{Name: "data"}); !errs.Is(err, errs.Invalid) {
			t.Errorf("of two: %v", err)
		}
		for i, n := range []string{nodes[0], ""} {
			if _, err := v.RemoveVolume(t.Context(), &logsv1.RemoveVolumeRequest{Name: "data", Node: n}); err != nil {
				t.Errorf("removal %d: %v", i, err)
			}
		}
		if _, err := v.RemoveVolume(t.Context(), &logsv1.RemoveVolumeRequest{Name: "data"}); !errs.Is(err, errs.NotFound) {
			t.Errorf("of none: %v", err)
		}
		for _, name := range []string{"../x", ".new-1", "a/b", ""} {
			if _, err := v.CreateVolume(t.Context(), &logsv1.CreateVolumeRequest{Node: nodes[0], Name: name}); !errs.Is(err, errs.Invalid) {
				t.Errorf("%q: %v", name, err)
			}
		}
	})
}
