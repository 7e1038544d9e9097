package mesh_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/mesh"
)

// caller is a service with one task on n2: on the overlay o1 as 10.0.0.<n>, on another as 10.9.0.<n>.
func caller(name string, n int, label string) []proto.Message {
	svc := &typesv1.Service{
		Meta: &typesv1.Meta{Id: "id-" + name},
		Spec: &typesv1.ServiceSpec{Annotations: &typesv1.Annotations{Name: name, Labels: map[string]string{"tier": label}}},
	}
	task := running("t-"+name, "n2")
	task.ServiceId = "id-" + name
	task.Decided.Addresses = []*typesv1.TaskAddress{
		{Addresses: []string{fmt.Sprintf("10.128.1.%d/32", n)}}, {NetworkId: "o1", Addresses: []string{fmt.Sprintf("10.0.0.%d/24", n)}},
		{NetworkId: "other", Addresses: []string{fmt.Sprintf("10.9.0.%d/24", n)}},
	}
	return []proto.Message{svc, task}
}

// Who may call: the service's own tasks, those of services that it names or whose label it names, and ranges as they are; by the
// addresses that they have where it can be called.
func TestCallers(t *testing.T) {
	objects := []proto.Message{node("n1", ready), node("n2", ready), overlay(), running("t1", "n1")}
	objects = append(objects, caller("front", 21, "edge")...)
	objects = append(objects, caller("batch", 22, "core")...)
	objects = append(objects, caller("probe", 23, "edge")...)
	s := put(state.Empty(), objects...)
	for _, tc := range []struct{ allow, want string }{ // 10.0.0.2, 10.128.0.2 and fd00::2 are its own task's
		{"front", "10.0.0.2 10.0.0.21 10.128.0.2 10.128.1.21 fd00::2"},
		{"label:tier=edge", "10.0.0.2 10.0.0.21 10.0.0.23 10.128.0.2 10.128.1.21 10.128.1.23 fd00::2"},
		{"label:tier batch", "10.0.0.2 10.0.0.21 10.0.0.22 10.0.0.23 10.128.0.2 10.128.1.21 10.128.1.22 10.128.1.23 fd00::2"},
		{"gone label:tier=none", "10.0.0.2 10.128.0.2 fd00::2"},
		{"192.0.2.0/24", "10.0.0.2 10.128.0.2 192.0.2.0/24 fd00::2"},
		{"what/ever", "10.0.0.2 10.128.0.2 fd00::2"}, // of a newer cluster: it lets nobody in
	} {
		svc := named()
		svc.Spec.Endpoint = &typesv1.EndpointSpec{AllowFrom: strings.Fields(tc.allow)}
		r := mesh.Full(mesh.Of(put(s, svc), "n1", mesh.SharedOf(put(s, svc), nil), nil))
		if len(r.GetCallers()) != 1 || r.GetLocalTasks()[0].GetServiceId() != r.GetCallers()[0].GetServiceId() {
			t.Fatalf("%s: told to the machine of its task: %v", tc.allow, r.GetCallers())
		}
		if got := strings.Join(r.GetCallers()[0].GetCallers().GetPrefixes(), " "); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.allow, got, tc.want)
		}
		if !proto.Equal(r.GetServices()[0].GetCallers(), r.GetCallers()[0].GetCallers()) {
			t.Errorf("%s: the ports are told other callers than the task", tc.allow)
		}
		other := mesh.Full(mesh.Of(put(s, svc), "n2", mesh.SharedOf(put(s, svc), nil), nil))
		if len(other.GetCallers()) != 0 || other.GetServices()[0].GetCallers() == nil {
			t.Errorf("%s: a machine without a task of it is told %v, and of its ports %v", tc.allow, other.GetCallers(), other.GetServices()[0])
		}
	}
}

// A difference has what has changed and no more: a caller that scales is told where it may call; one that nobody names is not.
func TestCallersChange(t *testing.T) {
	svc := named()
	svc.Spec.Endpoint = &typesv1.EndpointSpec{AllowFrom: []string{"front"}}
	objects := append([]proto.Message{node("n1", ready), node("n2", ready), overlay(), svc, running("t1", "n1")}, caller("front", 21, "edge")...)
	s := put(state.Empty(), objects...)
	shared := mesh.SharedOf(s, nil)
	tables := mesh.Of(s, "n1", shared, nil)
	step := func(what string, want int, gone int, objects ...proto.Message) *dispatcherv1.EndpointsResponse {
		t.Helper()
		s = put(s, objects...)
		shared = mesh.SharedOf(s, shared)
		next := mesh.Of(s, "n1", shared, tables)
		d := mesh.Diff(tables, next)
		tables = next
		if len(d.GetCallers()) != want || len(d.GetRemovedCallers()) != gone {
			t.Errorf("%s: callers %v, removed %v", what, d.GetCallers(), d.GetRemovedCallers())
		}
		return d
	}
	step("a stranger comes", 0, 0, caller("batch", 22, "core")...)
	more := caller("front", 24, "edge")[1].(*typesv1.Task)
	more.Meta.Id = "t-front-2"
	step("a caller scales", 1, 0, more)
	more = proto.CloneOf(more)
	more.Observed = &typesv1.TaskObserved{State: typesv1.TaskState_TASK_STATE_FAILED}
	d := step("a caller's task ends", 1, 0, more)
	if strings.Contains(fmt.Sprint(d.GetCallers()), "10.0.0.24") {
		t.Errorf("the address of a task that has ended may still call: %v", d.GetCallers())
	}
	svc = proto.CloneOf(svc)
	svc.Spec.Endpoint = nil
	step("it names nobody any more", 0, 1, svc)
}

// A service that is removed leaves its tasks running for as long as they need to stop. Until then nobody else may call them, and
// those of a removed caller may go on calling; a dispatcher that comes meanwhile does not
// know who might, and lets in nobody else.
func TestCallersOfRemovedServices(t *testing.T) {
	svc := named()
	svc.Spec.Endpoint = &typesv1.EndpointSpec{AllowFrom: []string{"front"}}
	s := put(state.Empty(), append([]proto.Message{node("n1", ready), node("n2", ready), overlay(), svc, running("t1", "n1")}, caller("front", 21, "edge")...)...)
	shared := mesh.SharedOf(s, nil)
	said := func(shared *mesh.Shared) string {
		r := mesh.Full(mesh.Of(s, "n1", shared, nil))
		if len(r.GetCallers()) == 0 {
			return "anybody"
		}
		return strings.Join(r.GetCallers()[0].GetCallers().GetPrefixes(), " ")
	}
	const want = "10.0.0.2 10.0.0.21 10.128.0.2 10.128.1.21 fd00::2"
	step := func(what, want string, without string, objects ...proto.Message) {
		t.Helper()
		s = put(s, objects...)
		if without != "" {
			s = drop(s, typesv1.Kind_KIND_SERVICE, without)
		}
		shared = mesh.SharedOf(s, shared)
		if got := said(shared); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	step("both are there", want, "")
	step("the caller is removed, and its task stops", want, "id-front")
	step("the service is removed, and its task stops", want, svc.GetMeta().GetId())
	step("something else changes", want, "", caller("batch", 22, "core")[0])
	if got := said(mesh.SharedOf(s, nil)); got != "10.0.0.2 10.128.0.2 fd00::2" {
		t.Errorf("a dispatcher that has come since lets in %q, want its own tasks alone", got)
	}
	ended := running("t1", "n1")
	ended.Observed = &typesv1.TaskObserved{State: typesv1.TaskState_TASK_STATE_COMPLETE}
	step("its task has ended", "anybody", "", ended)
}
