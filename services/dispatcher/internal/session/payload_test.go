package session_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// payloads is the store's side: what it has, and how often it says that it can't answer.
type payloads struct {
	mu    sync.Mutex // guards all below
	data  map[string]string
	fails int
	asked int
}

func (p *payloads) FetchPayload(_ context.Context, in *storev1.FetchPayloadRequest, _ ...grpc.CallOption) (*storev1.FetchPayloadResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	if p.fails > 0 {
		p.fails--
		return nil, errs.New(errs.Unavailable, "no leader")
	}
	data, ok := p.data[in.GetNodeId()+"/"+in.GetId()]
	if !ok {
		return nil, errs.New(errs.NotFound, "payload %s is gone", in.GetId())
	}
	return &storev1.FetchPayloadResponse{Data: []byte(data)}, nil
}

// TestDataFollowsItsTask: a machine is given the data that its tasks use after the assignment that needs it, once however many
// use it, also when the store does not answer at first, and again when a task needs it that comes after the last one went.
func TestDataFollowsItsTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := service()
		svc.GetService().Spec.Task.Container.Secrets = []*typesv1.FileReference{{Id: "s", Version: 3}}
		running := typesv1.TaskState_TASK_STATE_RUNNING
		r := newRig(t, node("n1"), node("n2"), svc, task("t1", "n1", running), task("t2", "n1", running))
		r.data.data["n1/s.3"], r.data.fails = "hunter2", 3
		m := r.open("n1", "boot")
		other := r.open("n2", "boot2")
		m.assignment()
		payload := func() *dispatcherv1.Payload {
			return m.until("data", func(resp *dispatcherv1.SessionResponse) bool { return resp.GetPayload() != nil }).GetPayload()
		}
		if p := payload(); p.GetId() != "s.3" || string(p.GetData()) != "hunter2" {
			t.Errorf("got %s", p.GetId())
		}
		r.store.Put(task("t3", "n1", running))
		m.assignment()
		time.Sleep(time.Second)
		if r.data.asked != 4 {
			t.Errorf("asked %d times, want 3 failures and one answer", r.data.asked)
		}
		for _, id := range []string{"t1", "t2", "t3"} {
			r.store.Delete(state.Key{Kind: typesv1.Kind_KIND_TASK, ID: id})
		}
		time.Sleep(time.Second)
		r.store.Put(task("t4", "n1", running))
		payload()
		for len(other.heard) > 0 {
			if (<-other.heard).GetPayload() != nil {
				t.Error("a machine without such a task was given the data")
			}
		}
	})
}
