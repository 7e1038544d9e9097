package store_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// TestPayloadsReachTheirNodesAlone: every voting store is given the key, a secret outlives the leader that sealed it, and its
// data goes to the dispatcher that has the session of a node with a task that uses it, and to nobody else.
func TestPayloadsReachTheirNodesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start("m1")
		defer w.stop()
		conn := w.anyStore(authzv1.Role_ROLE_OPERATOR, "ann")
		defer conn.Close()
		w.join(conn, "m2", "m3")
		ctx := t.Context()
		for _, name := range []string{"m1", "m2", "m3"} {
			w.certifyWrapKey(name)
		}
		w.commit(authzv1.Role_ROLE_SCHEDULER, "m1", commit.Create(state.Wrap(&typesv1.Lease{Meta: &typesv1.Meta{Id: "scheduler"}, Holder: "scheduler/m1", Number: 1}), "holder", "number"))
		id := w.secret(conn, "s", "data")
		login := &typesv1.RegistryLogin{Username: "ada", Password: "hunter2"}
		kept, err := controlv1.NewRegistryServiceClient(conn).SetRegistry(ctx, &controlv1.SetRegistryRequest{Name: "registry.test", Login: login})
		w.must(err)
		for _, node := range []string{"m1", "m2"} {
			w.commit(authzv1.Role_ROLE_DISPATCHER, "m1", commit.Put(state.Wrap(&typesv1.Node{
				Meta: &typesv1.Meta{Id: node}, Status: &typesv1.NodeStatus{Session: &typesv1.NodeSession{DispatcherId: "m1", Number: 1}},
			}), "status"))
		}
		fetch := func(dispatcher, node string) (string, error) { return w.fetch(dispatcher, node, id) }
		if got, err := fetch("m1", "m1"); err != nil || got != "data" {
			t.Errorf("fetched %q, %v", got, err)
		}
		secret := id
		id = state.PayloadID(kept.GetRegistry().GetMeta().GetId(), 1)
		var got typesv1.RegistryLogin
		if raw, err := fetch("m1", "m1"); err != nil || proto.Unmarshal([]byte(raw), &got) != nil || !proto.Equal(&got, login) {
			t.Errorf("the login of its image's registry: %v, %v", err, raw)
		}
		if _, err := fetch("m1", "m2"); !errors.Is(err, errs.NotFound) {
			t.Errorf("a login for a node without an image from there: %v", err)
		}
		id = secret
		if _, err := fetch("m2", "m1"); !errors.Is(err, errs.Denied) {
			t.Errorf("a dispatcher without the node's session: %v", err)
		}
		if _, err := fetch("m1", "m2"); !errors.Is(err, errs.NotFound) {
			t.Errorf("a node without such a task: %v", err)
		}
		agent := w.anyStore(authzv1.Role_ROLE_AGENT, "m1")
		defer agent.Close()
		if _, err := storev1.NewPayloadServiceClient(agent).FetchPayload(ctx, &storev1.FetchPayloadRequest{NodeId: "m1", Id: id}); !errors.Is(err, errs.Denied) {
			t.Errorf("an agent asks the store: %v", err)
		}
		w.eventually("every voter has the key", func() bool { return len(w.payloadKeys()) == 3 })
		w.crash(w.leader(conn))
		w.eventually("another leader opens it", func() bool { got, err := fetch("m1", "m1"); return err == nil && got == "data" })
	})
}

// certifyWrapKey records the wrap key of a store, as a CA does when a store joins.
func (w *world) certifyWrapKey(name string) {
	w.t.Helper()
	key, err := identity.WrapKey(w.stores[name].env.Files, "/data/wrap.key", w.env.Rand)
	w.must(err)
	c := w.anyStore(authzv1.Role_ROLE_CA, "m1")
	defer c.Close()
	put := commit.Put(state.Wrap(&typesv1.Member{Meta: &typesv1.Meta{Id: "store/" + name}, WrapKey: key.PublicKey().Bytes()}), "wrap_key")
	w.eventually("the member of "+name, func() bool {
		_, err := commit.New(storev1.NewCommitServiceClient(c), w.env.Rand).Do(context.Background(), &storev1.Transaction{Puts: []*storev1.Put{put}})
		return err == nil
	})
}

// payloadKeys are the copies of the payload key, as a CA sees the cluster.
func (w *world) payloadKeys() []*typesv1.WrappedKey {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c := w.anyStore(authzv1.Role_ROLE_CA, "m1")
	defer c.Close()
	stream, err := storev1.NewWatchServiceClient(c).Watch(ctx, &storev1.WatchRequest{Kinds: []typesv1.Kind{typesv1.Kind_KIND_CLUSTER}})
	w.must(err)
	resp, err := stream.Recv()
	w.must(err)
	return resp.GetChunk().GetObjects()[0].GetCluster().GetPayloadKeys()
}

// secret makes a secret as soon as there is a key, and a task on m1 that uses it, and returns the id of its data.
func (w *world) secret(conn *grpc.ClientConn, name, data string) string {
	w.t.Helper()
	var made *controlv1.CreateSecretResponse
	w.eventually("the key is there", func() (ok bool) {
		var err error
		made, err = controlv1.NewSecretServiceClient(conn).CreateSecret(context.Background(), &controlv1.CreateSecretRequest{
			Annotations: &typesv1.Annotations{Name: name}, Data: []byte(data),
		})
		return err == nil
	})
	s := spec("uses-" + name)
	s.Task.Container.Secrets = []*typesv1.FileReference{{Id: name}}
	svc, err := w.create(conn, s, "")
	w.must(err)
	w.commit(authzv1.Role_ROLE_SCHEDULER, "m1", commit.Create(state.Wrap(&typesv1.Task{
		Meta: &typesv1.Meta{Id: "t-" + name}, ServiceId: svc.GetService().GetMeta().GetId(), SpecVersion: 1,
		Decided: &typesv1.TaskDecided{NodeId: "m1", Slot: 1, Desired: typesv1.TaskState_TASK_STATE_RUNNING},
	}), "service_id", "spec_version", "decided"))
	return state.PayloadID(made.GetSecret().GetMeta().GetId(), 1)
}

// fetch asks for a payload as a dispatcher does.
func (w *world) fetch(dispatcher, node, id string) (string, error) {
	c := w.anyStore(authzv1.Role_ROLE_DISPATCHER, dispatcher)
	defer c.Close()
	resp, err := storev1.NewPayloadServiceClient(c).FetchPayload(context.Background(), &storev1.FetchPayloadRequest{NodeId: node, Id: id})
	return string(resp.GetData()), err
}

// TestLeaderWithoutTheKeyIsGivenIt: a store that came to lead before it was given the payload key gets it from the others at
// once, and not only when another leads.
func TestLeaderWithoutTheKeyIsGivenIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start("m1")
		defer w.stop()
		conn := w.anyStore(authzv1.Role_ROLE_OPERATOR, "ann")
		defer conn.Close()
		w.join(conn, "m2", "m3")
		w.certifyWrapKey("m1")
		w.certifyWrapKey("m2")
		w.eventually("two have the key", func() bool { return len(w.payloadKeys()) == 2 })
		for lead := w.leader(conn); lead != "m3"; lead = w.leader(conn) {
			w.crash(lead)
			w.leader(conn)
			w.start(lead)
			time.Sleep(10 * time.Second)
		}
		w.certifyWrapKey("m3")
		w.eventually("the third has it", func() bool { return len(w.payloadKeys()) == 3 })
		if lead := w.leader(conn); lead != "m3" {
			t.Fatalf("%s leads by now", lead)
		}
		w.eventually("the leader seals", func() bool {
			_, err := controlv1.NewSecretServiceClient(conn).CreateSecret(t.Context(), &controlv1.CreateSecretRequest{
				Annotations: &typesv1.Annotations{Name: "s"}, Data: []byte("data"),
			})
			return err == nil
		})
	})
}

// TestRemovedStoreKnowsNoLaterKey: when a store is removed there is a new payload key that it was never given; what was sealed
// before still opens.
func TestRemovedStoreKnowsNoLaterKey(t *testing.T) {
	t.Run("a secret", func(t *testing.T) {
		removedStore(t, func(w *world, conn *grpc.ClientConn) string { return w.secret(conn, "before", "old data") })
	})
	t.Run("a login", func(t *testing.T) {
		removedStore(t, func(w *world, conn *grpc.ClientConn) string {
			resp, err := controlv1.NewRegistryServiceClient(conn).SetRegistry(context.Background(), &controlv1.SetRegistryRequest{
				Name: "registry.test", Login: &typesv1.RegistryLogin{IdentityToken: "old data"},
			})
			w.must(err)
			return state.PayloadID(resp.GetRegistry().GetMeta().GetId(), 1)
		})
	})
}

// removedStore removes a store after something was sealed.
func removedStore(t *testing.T, seal func(w *world, conn *grpc.ClientConn) (id string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start("m1")
		defer w.stop()
		conn := w.anyStore(authzv1.Role_ROLE_OPERATOR, "ann")
		defer conn.Close()
		names := []string{"m1", "m2", "m3"}
		w.join(conn, names[1:]...)
		for _, name := range names {
			w.certifyWrapKey(name)
		}
		w.commit(authzv1.Role_ROLE_SCHEDULER, "m1", commit.Create(state.Wrap(&typesv1.Lease{Meta: &typesv1.Meta{Id: "scheduler"}, Holder: "scheduler/m1", Number: 1}), "holder", "number"))
		w.commit(authzv1.Role_ROLE_DISPATCHER, "m1", commit.Put(state.Wrap(&typesv1.Node{
			Meta: &typesv1.Meta{Id: "m1"}, Status: &typesv1.NodeStatus{Session: &typesv1.NodeSession{DispatcherId: "m1", Number: 1}},
		}), "status"))
		w.eventually("every voter has the key", func() bool { return len(w.payloadKeys()) == 3 })
		known := w.payloadKeys()[0].GetKeyId()
		before := seal(w, conn)

		leaver := "m3"
		if w.leader(conn) == leaver {
			leaver = "m2"
		}
		w.crash(leaver)
		w.eventually("it is removed", func() bool {
			_, err := controlv1.NewMemberServiceClient(conn).DeleteMember(t.Context(), &controlv1.DeleteMemberRequest{Member: "store/" + leaver, Force: true})
			return err == nil
		})
		w.eventually("there is a new key", func() bool {
			keys := w.payloadKeys()
			return keys[len(keys)-1].GetKeyId() != known
		})
		copies := map[string]int{}
		for _, k := range w.payloadKeys() {
			copies[k.GetMemberId()]++
		}
		if copies["store/"+leaver] != 0 || copies["store/m1"] != 2 || len(copies) != 2 {
			t.Fatalf("copies by member: %v", copies)
		}
		after := w.secret(conn, "after", "new data")
		for id, want := range map[string]string{before: "old data", after: "new data"} {
			w.eventually("it opens", func() bool { got, err := w.fetch("m1", "m1", id); return err == nil && strings.HasSuffix(got, want) })
		}
	})
}

// commit writes as one of our processes.
func (w *world) commit(role authzv1.Role, name string, puts ...*storev1.Put) {
	w.t.Helper()
	c := w.anyStore(role, name)
	defer c.Close()
	tx := &storev1.Transaction{Puts: puts}
	for _, p := range puts {
		key := state.KeyOf(p.GetObject())
		switch {
		case role == authzv1.Role_ROLE_SCHEDULER && key.Kind == typesv1.Kind_KIND_TASK:
			tx.Preconditions = append(tx.Preconditions, &storev1.Precondition{Condition: &storev1.Precondition_Fence{
				Fence: &storev1.Fence{Lease: "scheduler", Number: 1, Holder: "scheduler/" + name},
			}})
		case role == authzv1.Role_ROLE_DISPATCHER:
			tx.Preconditions = append(tx.Preconditions, commit.Unchanged(key.Kind, key.ID, 1))
		}
	}
	_, err := commit.New(storev1.NewCommitServiceClient(c), w.env.Rand).Do(context.Background(), tx)
	w.must(err)
}
