package admit

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/state"
)

// TestExamples: what the page of the service spec shows is admitted, by a cluster that allows all; see docs/reference/service-spec.md.
func TestExamples(t *testing.T) {
	data, err := os.ReadFile("../../../../docs/reference/service-spec-examples.json")
	if err != nil {
		t.Fatal(err)
	}
	var examples map[string]json.RawMessage
	if err := json.Unmarshal(data, &examples); err != nil || len(examples) < 100 {
		t.Fatalf("%d examples, %v", len(examples), err)
	}
	s := allowing()
	for name, body := range examples {
		spec := &typesv1.ServiceSpec{}
		if err := protojson.Unmarshal(body, spec); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if spec.GetTask().GetContainer().GetPrivileges().GetSeccomp().GetProfile() == "{}" { // the file of the example stands for a real one
			spec.Task.Container.Privileges.Seccomp.Profile = `{"defaultAction":"SCMP_ACT_ALLOW"}`
		}
		if _, f := Service(s, "", spec); f.Err("x") != nil {
			t.Errorf("%s: %v", name, f.Err("x"))
		}
	}
}

// TestPolicy: what the cluster allows is admitted, and each setting allows its own.
func TestPolicy(t *testing.T) {
	for _, privileged := range []bool{false, true} {
		for _, namespaces := range []bool{false, true} {
			f := &Faults{}
			policy := &typesv1.ContainerPolicy{AllowPrivileged: privileged, AllowHostNamespaces: namespaces}
			f.isolation(policy, &typesv1.ContainerSpec{Privileges: &typesv1.Privileges{Privileged: true}})
			if ok := f.Err("x") == nil; ok != privileged {
				t.Errorf("allow_privileged %v, allow_host_namespaces %v: privileged is admitted: %v", privileged, namespaces, ok)
			}
			f = &Faults{}
			f.isolation(policy, &typesv1.ContainerSpec{Privileges: &typesv1.Privileges{HostPid: true}})
			if ok := f.Err("x") == nil; ok != namespaces {
				t.Errorf("allow_privileged %v, allow_host_namespaces %v: host_pid is admitted: %v", privileged, namespaces, ok)
			}
			f = &Faults{}
			f.isolation(policy, &typesv1.ContainerSpec{Privileges: &typesv1.Privileges{HostNetwork: true}})
			if ok := f.Err("x") == nil; ok != namespaces {
				t.Errorf("allow_privileged %v, allow_host_namespaces %v: host_network is admitted: %v", privileged, namespaces, ok)
			}
		}
	}
}

// TestDefaultUsers: a new service has the cluster's default where it can and says nothing else; one that is there keeps what it has.
func TestDefaultUsers(t *testing.T) {
	const host, private = typesv1.UserNamespace_USER_NAMESPACE_HOST, typesv1.UserNamespace_USER_NAMESPACE_PRIVATE
	change := snapshot().Begin()
	change.Put(state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "c1"}, Spec: &typesv1.ClusterSpec{
		Containers: &typesv1.ContainerPolicy{AllowPrivileged: true, UserNamespace: private},
	}}))
	s := change.Commit(state.Version{EpochNumber: 1, Revision: 2}, time.Unix(0, 0))
	for _, c := range []struct {
		name, id string
		asks     *typesv1.Privileges
		want     typesv1.UserNamespace
	}{
		{"new", "", nil, private},
		{"new, without new privileges", "", &typesv1.Privileges{NoNewPrivileges: true}, private},
		{"new, of the node's users", "", &typesv1.Privileges{UserNamespace: host}, host},
		{"new and privileged", "", &typesv1.Privileges{Privileged: true}, 0},
		{"there", "s1", nil, 0},
	} {
		spec, f := Service(s, c.id, &typesv1.ServiceSpec{Annotations: &typesv1.Annotations{Name: "fresh"}, Task: &typesv1.TaskSpec{
			Container: &typesv1.ContainerSpec{Image: "img", Privileges: c.asks}}})
		if got := spec.GetTask().GetContainer().GetPrivileges().GetUserNamespace(); f.Err("create") != nil || got != c.want {
			t.Errorf("%s: %s, %v, want %s", c.name, got, f.Err("create"), c.want)
		}
	}
}

// allowing is the usual snapshot of a cluster that allows all.
func allowing() *state.Snapshot {
	t := snapshot().Begin()
	t.Put(state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "c1"}, Spec: &typesv1.ClusterSpec{
		Containers: &typesv1.ContainerPolicy{AllowPrivileged: true, AllowHostNamespaces: true},
	}}))
	versions := []*typesv1.DataVersion{{Number: 3, Bytes: 1}}
	t.Put(state.Wrap(&typesv1.Secret{Meta: &typesv1.Meta{Id: "secret1"}, Annotations: &typesv1.Annotations{Name: "db.key"}, Versions: versions}))
	t.Put(state.Wrap(&typesv1.Config{Meta: &typesv1.Meta{Id: "config1"}, Annotations: &typesv1.Annotations{Name: "app.conf"}, Versions: versions}))
	t.Put(state.Wrap(&typesv1.Service{Meta: &typesv1.Meta{Id: "service1"}, Spec: &typesv1.ServiceSpec{Annotations: &typesv1.Annotations{Name: "db"}}}))
	return t.Commit(state.Version{EpochNumber: 1, Revision: 2}, time.Unix(0, 0))
}
