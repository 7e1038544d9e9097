package ca_test

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/identity"
	internal "github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/replica/replicatest"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/ca"
)

const (
	firstHost = "10.0.0.1"
	caAddress = firstHost + ":2377"
	shoalDir  = "/var/lib/shoal"
)

// world is one cluster: a fake store, a CA that Bootstrap began, and machines, all on one network in a bubble.
type world struct {
	t     *testing.T
	net   run.Network
	log   *bytes.Buffer
	mu    sync.Mutex // guards log
	first run.Env    // of the first machine
	made  ca.BootstrapResult
	store *replicatest.Store
	spawn *run.Spawner
	ctx   context.Context
	ahead atomic.Int64 // every machine's wall clock is this much ahead of virtual time
}

// now is every machine's wall clock.
func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

// forward sets all clocks forward, as if everything had been off, and gives the processes time to notice.
func (w *world) forward(d time.Duration) {
	w.ahead.Add(int64(d))
	time.Sleep(25 * time.Minute)
}

func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

// logged is all that any process has written to its log.
func (w *world) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

// machine is a machine of its own, with nothing on its disk.
func (w *world) machine(name string, seed uint64) run.Env {
	env := testx.Env(w.t)
	env.Host, env.Net, env.Rand, env.Now = name, w.net, run.NewRand(seed), w.now
	env.Log = slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return env
}

// process is the env of one more process of a machine.
func process(env run.Env) run.Env {
	env.Metrics = prometheus.NewRegistry()
	return env
}

func bootstrapConfig() ca.BootstrapConfig {
	cfg := ca.DefaultBootstrapConfig()
	cfg.Advertise = []string{firstHost, "first.example"}
	return cfg
}

// inWorld runs a test in a bubble in which the first CA serves.
func inWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := &world{t: t, net: testx.NewNetwork(), log: &bytes.Buffer{}, ctx: ctx}
		w.spawn = run.NewSpawner(slog.New(slog.NewTextHandler(w, nil)))
		w.first = w.machine("first", 1)
		made, err := ca.Bootstrap(bootstrapConfig(), w.first)
		if err != nil {
			t.Fatal(err)
		}
		w.made = made
		w.startStore()
		w.startCA(w.first, firstHost)
		w.until("the CA serves", func() bool { return w.tokenOf(typesv1.NodeRole_NODE_ROLE_WORKER) != "" })
		defer func() {
			cancel()
			if err := w.spawn.Wait(context.Background()); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				t.Log(w.logged())
			}
		}()
		test(w)
	})
}

// startStore serves the fake store, with the first transaction applied, under the store's own certificate.
func (w *world) startStore() {
	w.t.Helper()
	data, err := w.first.Files.Read(shoalDir + "/store/first-transaction.pb")
	if err != nil {
		w.t.Fatal(err)
	}
	tx := &storev1.Transaction{}
	if err := proto.Unmarshal(data, tx); err != nil {
		w.t.Fatal(err)
	}
	var objects []*typesv1.Object
	for _, p := range tx.GetPuts() {
		objects = append(objects, p.GetObject())
	}
	w.store = replicatest.New(w.first, objects...)
	p, err := internal.Open(process(w.first), config.Base{Advertise: []string{firstHost}}, authzv1.Role_ROLE_STORE, 2381)
	if err != nil {
		w.t.Fatal(err)
	}
	storev1.RegisterCommitServiceServer(p.Server.GRPC(), w.store)
	storev1.RegisterWatchServiceServer(p.Server.GRPC(), w.store)
	g := run.NewGroup(p.Env.Log)
	p.Go(g)
	w.spawn.Go(w.ctx, "store", g.Wait)
}

// startCA runs the CA of a machine, and returns how to stop it.
func (w *world) startCA(env run.Env, address string) (stop func()) {
	cfg := ca.DefaultConfig()
	cfg.Base = config.Base{Advertise: []string{address}, LogLevel: "error"} // audit lines are written nevertheless
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan struct{})
	w.spawn.Go(ctx, "ca "+env.Host, func(ctx context.Context) error {
		defer close(done)
		return ca.Run(ctx, cfg, process(env))
	})
	return func() { cancel(); <-done }
}

// until waits, in virtual time, for at most ten minutes.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); {
		if ok() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.t.Fatalf("not reached: %s", what)
}

// dialAs makes a client of the CA at an address with a keeper.
func (w *world) dialAs(env run.Env, dir, addr string) *grpc.ClientConn {
	w.t.Helper()
	keeper, err := identity.Load(process(env), dir)
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := rpc.DialAddress(process(env), keeper, addr, authzv1.Role_ROLE_CA)
	if err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// operator is the identity folder of the person whom Bootstrap has made, on a machine of its own.
func (w *world) operator() (run.Env, string) {
	w.t.Helper()
	env := w.machine("laptop", 99)
	for name, data := range map[string]string{
		identity.CertFile: w.made.OperatorCert, identity.KeyFile: w.made.OperatorKey, identity.BundleFile: w.made.Bundle,
	} {
		if err := env.Files.Write("/me/"+name, []byte(data), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	return env, "/me"
}

// tokenOf asks as the operator; empty while the CA cannot say.
func (w *world) tokenOf(kind typesv1.NodeRole) string {
	w.t.Helper()
	env, dir := w.operator()
	conn := w.dialAs(env, dir, caAddress)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(w.ctx, time.Second)
	defer cancel()
	resp, err := cav1.NewTokenServiceClient(conn).GetJoinToken(ctx, &cav1.GetJoinTokenRequest{Role: kind})
	if err != nil {
		return ""
	}
	return resp.GetToken()
}

// rotate rotates as the operator.
func (w *world) rotate(kind typesv1.NodeRole) string {
	w.t.Helper()
	env, dir := w.operator()
	conn := w.dialAs(env, dir, caAddress)
	defer conn.Close()
	resp, err := cav1.NewTokenServiceClient(conn).RotateJoinToken(w.ctx, &cav1.RotateJoinTokenRequest{Role: kind})
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.GetToken()
}

func workerRoles() []authzv1.Role {
	return []authzv1.Role{authzv1.Role_ROLE_AGENT, authzv1.Role_ROLE_MESHPROXY}
}

func managerRoles() []authzv1.Role {
	return append([]authzv1.Role{
		authzv1.Role_ROLE_CA, authzv1.Role_ROLE_STORE, authzv1.Role_ROLE_SCHEDULER,
		authzv1.Role_ROLE_DISPATCHER, authzv1.Role_ROLE_GATEWAY,
	}, workerRoles()...)
}

// join joins a machine by the real client.
func (w *world) join(env run.Env, token, address string, roles []authzv1.Role) (enroll.Result, error) {
	time.Sleep(2 * time.Second) // the network has one address for all, and the limit is on addresses
	return enroll.Join(w.ctx, env, enroll.Request{Token: token, Addresses: []string{caAddress}, Advertise: []string{address}, Roles: roles})
}

func (w *world) mustJoin(env run.Env, token, address string, roles []authzv1.Role) enroll.Result {
	w.t.Helper()
	r, err := w.join(env, token, address, roles)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func modeOf(t *testing.T, files run.Files, name string) fs.FileMode {
	t.Helper()
	info, err := files.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}
