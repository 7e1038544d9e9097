package session_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// tomorrow is a field that the next version has and this one has never heard of.
var tomorrow = protowire.AppendString(protowire.AppendTag(nil, 4242, protowire.BytesType), "of the next version")

// Dispatchers and machines are upgraded in any order. A machine of the next version, which says what this one does not know,
// keeps its session; what it describes of itself that is unknown here is in the store; and a spec of the next version
// reaches it whole.
func TestMachineOfTheNextVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := service()
		svc.GetService().GetSpec().GetTask().ProtoReflect().SetUnknown(tomorrow)
		r := newRig(t, node("n1"), svc, task("t1", "n1", typesv1.TaskState_TASK_STATE_RUNNING))
		m := r.open("n1", "boot")
		if got := m.assignment().GetTasks()[0].GetSpec().ProtoReflect().GetUnknown(); !bytes.Equal(got, tomorrow) {
			t.Errorf("of a spec of the next version the machine got %q", got)
		}
		d := &typesv1.NodeDescription{Hostname: "h"}
		d.ProtoReflect().SetUnknown(tomorrow)
		m.say(&dispatcherv1.SessionRequest{Message: &dispatcherv1.SessionRequest_Description{Description: d}})
		news := &dispatcherv1.SessionRequest{}
		news.ProtoReflect().SetUnknown(tomorrow)
		m.say(news)
		beat := &dispatcherv1.Heartbeat{Seq: 7}
		beat.ProtoReflect().SetUnknown(tomorrow)
		m.say(&dispatcherv1.SessionRequest{Message: &dispatcherv1.SessionRequest_Heartbeat{Heartbeat: beat}})
		m.until("acknowledgement", func(resp *dispatcherv1.SessionResponse) bool { return resp.GetHeartbeatAck().GetSeq() == 7 })
		time.Sleep(time.Second)
		st := r.store.Snapshot().Node("n1").GetStatus()
		if got := st.GetDescription().ProtoReflect().GetUnknown(); !bytes.Equal(got, tomorrow) {
			t.Errorf("of a description of the next version the store has %q", got)
		}
		if st.GetSession().GetNumber() != 1 {
			t.Errorf("session %d, want the first", st.GetSession().GetNumber())
		}
	})
}

// A machine of the version before says less: its hello has only what was always in it.
func TestMachineOfTheVersionBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, node("n1"), service(), task("t1", "n1", typesv1.TaskState_TASK_STATE_RUNNING))
		m := r.open("n1", "boot") // no description, no ports, no generation
		if n := len(m.assignment().GetTasks()); n != 1 {
			t.Fatalf("%d tasks, want 1", n)
		}
		m.say(&dispatcherv1.SessionRequest{Message: &dispatcherv1.SessionRequest_Status{Status: &dispatcherv1.StatusBatch{
			Seq: 1, Tasks: []*dispatcherv1.TaskStatus{{TaskId: "t1", Observed: &typesv1.TaskObserved{State: typesv1.TaskState_TASK_STATE_RUNNING}}},
		}}})
		m.until("acknowledgement", func(resp *dispatcherv1.SessionResponse) bool { return resp.GetStatusAck().GetSeq() == 1 })
		if got := state.TaskState(r.store.Snapshot().Task("t1"), r.store.Snapshot().Node("n1")); got != typesv1.TaskState_TASK_STATE_RUNNING {
			t.Errorf("its task is %s", got)
		}
	})
}

// A machine of the version before keeps the patience of its welcome, whatever an acknowledgement says. One that was asked to beat less
// often than that bears would find its dispatcher silent between two heartbeats, and end its session again and again. So among thousands of
// machines it beats each second, which 2 s bear; one that hears of its patience beats each 2 s.
func TestMachineOfTheVersionBeforeKeepsItsPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ms = time.Millisecond
		r := newRig(t, node("n1"), node("n2"), node("n3"))
		early := r.openSaying("n1", &dispatcherv1.Hello{BootId: "boot", Addresses: []string{"10.0.0.1"}})
		welcomed(early, 500*ms, 2000*ms)
		r.sessions.Crowd(5000)
		early.beat(1)
		ack := early.until("acknowledgement", func(resp *dispatcherv1.SessionResponse) bool { return resp.GetHeartbeatAck().GetSeq() == 1 }).GetHeartbeatAck()
		if p, s := ack.GetHeartbeatPeriod().AsDuration(), ack.GetHeartbeatTimeout().AsDuration(); p != 1000*ms || s != 2000*ms {
			t.Errorf("told later to beat each %s, and a patience of %s", p, s)
		}
		welcomed(r.openSaying("n2", &dispatcherv1.Hello{BootId: "boot", Addresses: []string{"10.0.0.1"}}), 1000*ms, 2000*ms)
		welcomed(r.open("n3", "boot"), 2000*ms, 3000*ms)
	})
}

func welcomed(m *machine, period, patience time.Duration) {
	m.t.Helper()
	w := m.until("welcome", func(resp *dispatcherv1.SessionResponse) bool { return resp.GetWelcome() != nil }).GetWelcome()
	if p, s := w.GetHeartbeatPeriod().AsDuration(), w.GetHeartbeatTimeout().AsDuration(); p != period || s != patience {
		m.t.Errorf("welcomed to beat each %s, with a patience of %s; want %s and %s", p, s, period, patience)
	}
}
