package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/internal/testx"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store"
	"github.com/shoalproject/shoal/services/store/storetest"
)

const cluster = "testcluster"

// world is a cluster's stores in one bubble.
type world struct {
	t      *testing.T
	env    run.Env // shared parts; each store has its own files and metrics
	ca     *identitytest.Authority
	seed   *cav1.Directory
	stores map[string]*oneStore
}

type oneStore struct {
	name   string
	env    run.Env
	disk   *storetest.Disk
	cancel context.CancelFunc
	done   chan error
}

func newWorld(t *testing.T) *world {
	env := testx.Env(t)
	w := &world{t: t, env: env, ca: identitytest.New(t, env, cluster), seed: &cav1.Directory{}, stores: map[string]*oneStore{}}
	for i := range 3 {
		name := fmt.Sprintf("m%d", i+1)
		w.seed.Entries = append(w.seed.Entries, &cav1.DirectoryEntry{
			Role: authzv1.Role_ROLE_STORE, MachineId: name, Addresses: []string{address(name)}, Weight: 10,
		})
	}
	return w
}

func host(name string) string    { return "10.0.0." + name[1:] }
func address(name string) string { return host(name) + ":2381" }

func firstTransaction() *storev1.Transaction {
	put := func(m proto.Message, fields ...string) *storev1.Put {
		return &storev1.Put{Object: state.Wrap(m), Fields: fields, Create: true}
	}
	tx := &storev1.Transaction{Puts: []*storev1.Put{put(&typesv1.Cluster{
		Meta:     &typesv1.Meta{Id: cluster},
		Spec:     &typesv1.ClusterSpec{Annotations: &typesv1.Annotations{Name: "default"}, FirstPort: 30000, LastPort: 32767},
		DataPath: &typesv1.DataPath{MachineNetwork: "10.128.0.0/10", NetworkPool: "10.0.0.0/9"},
	}, "spec", "data_path")}}
	for _, name := range []string{"m1", "m2", "m3"} {
		tx.Puts = append(tx.Puts, put(&typesv1.Node{
			Meta: &typesv1.Meta{Id: name}, Identity: &typesv1.NodeIdentity{Hostname: "host-" + name},
			Spec: &typesv1.NodeSpec{Role: typesv1.NodeRole_NODE_ROLE_MANAGER, Availability: typesv1.Availability_AVAILABILITY_ACTIVE},
		}, "spec", "identity"))
		id := "store/" + name
		tx.Puts = append(tx.Puts, put(&typesv1.Credential{
			Meta: &typesv1.Meta{Id: id}, Serial: "beef" + name, NotAfter: timestamppb.New(time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)),
		}, "serial", "not_after"))
	}
	return tx
}

// start starts a store; the very first start of m1 begins the history.
func (w *world) start(name string) {
	w.t.Helper()
	s := w.stores[name]
	if s == nil {
		s = &oneStore{name: name, env: w.env, disk: storetest.NewDisk(w.env.Rand)}
		s.env.Files, s.env.Host = testx.NewFiles(), name
		w.ca.Write(w.t, s.env, "/data/identity", identitytest.Leaf{URIs: []string{w.ca.ID(authzv1.Role_ROLE_STORE, name).URI()}})
		w.must(directory.Write(s.env.Files, "/data/directory.json", w.seed))
		if name == "m1" {
			raw, err := proto.Marshal(firstTransaction())
			w.must(err)
			w.must(s.env.Files.Write("/data/first-transaction.pb", raw, 0o600))
		}
		w.stores[name] = s
	}
	s.env.Metrics = prometheus.NewRegistry()
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.done = cancel, make(chan error, 1)
	cfg := store.DefaultConfig()
	cfg.Base = config.Base{Data: "/data", Advertise: []string{host(name)}, LogLevel: "debug"}
	done := s.done
	go func() { done <- store.Run(ctx, cfg, store.Env{Env: s.env, Storage: s.disk}) }()
}

func (w *world) crash(name string) {
	s := w.stores[name]
	s.disk.Crash()
	s.cancel()
	<-s.done
	s.cancel = nil
}

func (w *world) stop() {
	for _, s := range w.stores {
		if s.cancel != nil {
			s.cancel()
			if err := <-s.done; err != nil {
				w.t.Errorf("store %s: %v", s.name, err)
			}
		}
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// dial is a client of one store with a role's certificate.
func (w *world) dial(role authzv1.Role, name, to string) *grpc.ClientConn {
	w.t.Helper()
	k := w.ca.Keeper(w.t, w.env, w.ca.ID(role, name))
	conn, err := rpc.DialAddress(w.env, k, address(to), authzv1.Role_ROLE_STORE)
	w.must(err)
	return conn
}

// anyStore is a client of whichever store answers.
func (w *world) anyStore(role authzv1.Role, name string) *grpc.ClientConn {
	w.t.Helper()
	env := w.env
	env.Files = testx.NewFiles()
	dir, err := directory.New(env.Files, "/directory.json")
	w.must(err)
	w.must(dir.Set(w.seed))
	conn, err := rpc.Dial(env, w.ca.Keeper(w.t, env, w.ca.ID(role, name)), dir, authzv1.Role_ROLE_STORE)
	w.must(err)
	return conn
}

// eventually tries until f is true, for as long as a minute of virtual time.
func (w *world) eventually(what string, f func() bool) {
	w.t.Helper()
	for range 600 {
		if f() {
			return
		}
		w.must(run.Sleep(context.Background(), 100*time.Millisecond))
	}
	w.t.Fatalf("%s: not after a minute", what)
}
