package gateway_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/replica/replicatest"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/internal/testx"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	schedulerv1 "github.com/shoalproject/shoal/proto/shoal/scheduler/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/gateway"
)

const maxBody = 4096

// world is a cluster of one store, one CA and the gateway under test, over real TLS in a network in memory.
type world struct {
	t        *testing.T
	env      run.Env
	ca       *identitytest.Authority
	objects  *replicatest.Store
	announce chan *controlv1.AnnounceRequest
	ready    chan struct{}
	halt     func() // stops the store

	mu      sync.Mutex // guards below
	callers []rpc.Caller
	answer  error // what CreateService answers
}

// store is the little of a store that a gateway needs.
type store struct {
	controlv1.UnimplementedServiceServiceServer
	controlv1.UnimplementedMemberServiceServer
	*world
}

func (s store) heard(ctx context.Context) error {
	c, _ := rpc.CallerOf(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.callers = append(s.callers, c)
	return s.answer
}

func (s store) CreateService(ctx context.Context, r *controlv1.CreateServiceRequest) (*controlv1.CreateServiceResponse, error) {
	return &controlv1.CreateServiceResponse{Service: &typesv1.Service{Meta: &typesv1.Meta{Id: "s1"}, Spec: r.GetSpec()}}, s.heard(ctx)
}

func (s store) GetService(ctx context.Context, r *controlv1.GetServiceRequest) (*controlv1.GetServiceResponse, error) {
	return &controlv1.GetServiceResponse{Service: &typesv1.Service{Meta: &typesv1.Meta{Id: r.GetService()}}}, s.heard(ctx)
}

func (s store) Announce(_ context.Context, r *controlv1.AnnounceRequest) (*controlv1.AnnounceResponse, error) {
	select {
	case s.announce <- r:
	default:
	}
	return &controlv1.AnnounceResponse{Life: durationpb.New(time.Minute)}, nil
}

// ca is the little of a CA that a gateway needs.
type ca struct {
	cav1.UnimplementedTokenServiceServer
	*world
}

func (c ca) GetJoinToken(ctx context.Context, _ *cav1.GetJoinTokenRequest) (*cav1.GetJoinTokenResponse, error) {
	return &cav1.GetJoinTokenResponse{Token: "SHOAL-1-x-y"}, store{world: c.world}.heard(ctx)
}

// scheduler is the little of a scheduler that a gateway needs.
type scheduler struct {
	schedulerv1.UnimplementedExplainServiceServer
	schedulerv1.UnimplementedPlanServiceServer
	*world
}

func (s scheduler) Explain(ctx context.Context, r *schedulerv1.ExplainRequest) (*schedulerv1.ExplainResponse, error) {
	return &schedulerv1.ExplainResponse{ServiceName: r.GetService()}, store{world: s.world}.heard(ctx)
}

func (s scheduler) Plan(ctx context.Context, r *schedulerv1.PlanRequest) (*schedulerv1.PlanResponse, error) {
	return &schedulerv1.PlanResponse{Unrest: strings.Join(r.GetPowerOff(), ",")}, store{world: s.world}.heard(ctx)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	env := testx.Env(t)
	w := &world{
		t: t, env: env, ca: identitytest.New(t, env, "c1"),
		announce: make(chan *controlv1.AnnounceRequest, 1), ready: make(chan struct{}, 10),
	}
	w.objects = replicatest.New(env, state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "c1"}}))
	w.halt = w.serve(authzv1.Role_ROLE_STORE, "store:2381", func(s grpc.ServiceRegistrar) {
		controlv1.RegisterServiceServiceServer(s, store{world: w})
		controlv1.RegisterMemberServiceServer(s, store{world: w})
		storev1.RegisterWatchServiceServer(s, w.objects)
	})
	w.serve(authzv1.Role_ROLE_CA, "ca:2377", func(s grpc.ServiceRegistrar) {
		cav1.RegisterTokenServiceServer(s, ca{world: w})
	})
	w.serve(authzv1.Role_ROLE_SCHEDULER, "scheduler:2382", func(s grpc.ServiceRegistrar) {
		schedulerv1.RegisterExplainServiceServer(s, scheduler{world: w})
		schedulerv1.RegisterPlanServiceServer(s, scheduler{world: w})
	})
	w.startGateway()
	return w
}

func (w *world) run(f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := run.Async(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, f(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		if r := <-done; r.Err != nil {
			w.t.Error(r.Err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

func (w *world) own() run.Env {
	env := w.env
	env.Metrics = testx.Env(w.t).Metrics
	return env
}

func (w *world) serve(role authzv1.Role, addr string, register func(grpc.ServiceRegistrar)) (stop func()) {
	w.t.Helper()
	s := rpc.NewServer(w.own(), w.ca.Keeper(w.t, w.env, w.ca.ID(role, "m1")))
	register(s.GRPC())
	return w.run(s.Serve([]string{addr}))
}

func (w *world) startGateway() {
	w.t.Helper()
	w.ca.Write(w.t, w.env, "/gateway/identity", identitytest.Leaf{
		URIs: []string{w.ca.ID(authzv1.Role_ROLE_GATEWAY, "g1").URI()},
	})
	members := &cav1.Directory{Entries: []*cav1.DirectoryEntry{
		{Role: authzv1.Role_ROLE_STORE, MachineId: "m1", Addresses: []string{"store:2381"}},
		{Role: authzv1.Role_ROLE_CA, MachineId: "m1", Addresses: []string{"ca:2377"}},
		{Role: authzv1.Role_ROLE_SCHEDULER, MachineId: "m1", Addresses: []string{"scheduler:2382"}},
	}}
	if err := directory.Write(w.env.Files, "/gateway/directory.json", members); err != nil {
		w.t.Fatal(err)
	}
	env := w.own()
	env.Notify = func(state string) error {
		if state == "READY=1" {
			w.ready <- struct{}{}
		}
		return nil
	}
	cfg := gateway.DefaultConfig()
	cfg.Base = config.Base{Data: "/gateway", Advertise: []string{"gw"}, Listen: []string{"gw:2384"}}
	cfg.MaxBody = maxBody
	w.run(func(ctx context.Context) error { return gateway.Run(ctx, cfg, env) })
	select {
	case <-w.ready:
	case <-time.After(20 * time.Second):
		w.t.Fatal("the gateway is not ready")
	}
}

func (w *world) person(role authzv1.Role, name string) *identity.Keeper {
	w.t.Helper()
	return w.ca.Keeper(w.t, w.env, w.ca.ID(role, name))
}

func (w *world) heardAs() rpc.Caller {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.callers) == 0 {
		w.t.Fatal("the call was not passed on")
	}
	return w.callers[len(w.callers)-1]
}

func (w *world) calls() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.callers)
}

func (w *world) answers(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = err
}

// rest makes one request as a person; a nil keeper presents no certificate.
func (w *world) rest(k *identity.Keeper, method, path string, body io.Reader, headers ...string) (int, string) {
	w.t.Helper()
	config := identity.BlindTLS(w.env, "http/1.1")
	if k != nil {
		config = k.ClientTLS("http/1.1", authzv1.Role_ROLE_GATEWAY)
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: config,
		DialContext:     func(ctx context.Context, n, a string) (net.Conn, error) { return w.env.Net.Dial(ctx, n, a) },
	}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(w.t.Context(), method, "https://gw:2384"+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func (w *world) dial(k *identity.Keeper) *grpc.ClientConn {
	w.t.Helper()
	conn, err := rpc.DialAddress(w.own(), k, "gw:2384", authzv1.Role_ROLE_GATEWAY)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

const create = `{"spec": {"annotations": {"name": "web"}}}`

// A person's call reaches the store as the person's, by way of the gateway, over REST and over gRPC.
func TestIdentityIsPassedOn(t *testing.T) {
	w := newWorld(t)
	ann := w.person(authzv1.Role_ROLE_OPERATOR, "ann")
	code, body := w.rest(ann, "POST", "/v1/services", strings.NewReader(create))
	if code != http.StatusOK || !strings.Contains(body, `"name":"web"`) {
		t.Fatalf("%d %s, want 200 and the service", code, body)
	}
	check := func(how string) {
		t.Helper()
		c := w.heardAs()
		if c.Principal != ann.ID() || len(c.Via) != 1 || c.Via[0] != w.ca.ID(authzv1.Role_ROLE_GATEWAY, "g1") {
			t.Fatalf("%s: the store heard %v by way of %v, want %v by way of the gateway", how, c.Principal, c.Via, ann.ID())
		}
	}
	check("REST")
	_, err := controlv1.NewServiceServiceClient(w.dial(ann)).CreateService(t.Context(), &controlv1.CreateServiceRequest{})
	if err != nil {
		t.Fatal(err)
	}
	check("gRPC")
	if code, body = w.rest(ann, "GET", "/v1/join-tokens/NODE_ROLE_WORKER", nil); code != http.StatusOK || !strings.Contains(body, "SHOAL-1-x-y") {
		t.Fatalf("%d %s, want 200 and the CA's token", code, body)
	}
	check("REST to the CA")
	if code, body = w.rest(ann, "GET", "/v1/services/web/explanation", nil); code != http.StatusOK || !strings.Contains(body, `"web"`) {
		t.Fatalf("%d %s, want 200 and the scheduler's answer", code, body)
	}
	check("REST to a scheduler")
	if code, body = w.rest(ann, "POST", "/v1/plan", strings.NewReader(`{"power_off": ["w1", "w2"]}`)); code != http.StatusOK || !strings.Contains(body, "w1,w2") {
		t.Fatalf("%d %s, want 200 and the scheduler's plan", code, body)
	}
	check("REST to a scheduler, with a body")
}

// What a client writes into headers is nobody's identity: the certificate alone is.
func TestHeadersAreNoIdentity(t *testing.T) {
	w := newWorld(t)
	eve := w.person(authzv1.Role_ROLE_VIEWER, "eve")
	ann := w.ca.ID(authzv1.Role_ROLE_OPERATOR, "ann").URI()
	code, body := w.rest(eve, "GET", "/v1/services/web", nil, "Grpc-Metadata-Shoal-Caller", ann, "Shoal-Caller", ann)
	if code != http.StatusOK {
		t.Fatalf("%d %s, want 200", code, body)
	}
	if c := w.heardAs(); c.Principal != eve.ID() {
		t.Fatalf("the store heard %v, want %v", c.Principal, eve.ID())
	}
}

// A viewer reads and does not write, by either way, and the refused call never leaves the gateway.
func TestViewerCannotWrite(t *testing.T) {
	w := newWorld(t)
	eve := w.person(authzv1.Role_ROLE_VIEWER, "eve")
	if code, body := w.rest(eve, "GET", "/v1/services/web", nil); code != http.StatusOK {
		t.Fatalf("read: %d %s, want 200", code, body)
	}
	w.halt() // what is passed on now is Unavailable
	before := w.calls()
	if code, body := w.rest(eve, "POST", "/v1/services", strings.NewReader(create)); code != http.StatusForbidden {
		t.Fatalf("write: %d %s, want 403", code, body)
	}
	_, err := controlv1.NewServiceServiceClient(w.dial(eve)).CreateService(t.Context(), &controlv1.CreateServiceRequest{})
	if !errs.Is(err, errs.Denied) {
		t.Fatalf("write over gRPC: %v, want denied", err)
	}
	if w.calls() != before {
		t.Fatal("a refused call was passed on")
	}
}

// Without a certificate nothing is answered but the description of the API; nor for a process of the cluster.
func TestPeopleOnly(t *testing.T) {
	w := newWorld(t)
	if code, body := w.rest(nil, "GET", "/v1/services/web", nil); code != http.StatusForbidden {
		t.Fatalf("without a certificate: %d %s, want 403", code, body)
	}
	agent := w.person(authzv1.Role_ROLE_AGENT, "n1")
	if code, body := w.rest(agent, "GET", "/v1/services/web", nil); code != http.StatusForbidden {
		t.Fatalf("an agent: %d %s, want 403", code, body)
	}
	if w.calls() != 0 {
		t.Fatal("a refused call was passed on")
	}
	code, body := w.rest(nil, "GET", "/openapi.json", nil)
	var doc struct {
		Paths map[string]any `json:"paths"`
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil || code != http.StatusOK || doc.Paths["/v1/services"] == nil {
		t.Fatalf("OpenAPI: %d, %v, want 200 and a document with /v1/services", code, err)
	}
}

// A body that is too large is refused: before it is read if it says so, and else as soon as it is.
func TestBodyLimit(t *testing.T) {
	w := newWorld(t)
	ann := w.person(authzv1.Role_ROLE_OPERATOR, "ann")
	large := `{"request_id": "` + strings.Repeat("x", maxBody) + `"}`
	if code, body := w.rest(ann, "POST", "/v1/services", strings.NewReader(large)); code != http.StatusRequestEntityTooLarge {
		t.Fatalf("with a length: %d %s, want 413", code, body)
	}
	chunked := io.MultiReader(strings.NewReader(large)) // of no length that a client knows
	if code, body := w.rest(ann, "POST", "/v1/services", chunked); code != http.StatusBadRequest {
		t.Fatalf("without a length: %d %s, want 400", code, body)
	}
	if w.calls() != 0 {
		t.Fatal("a refused call was passed on")
	}
}

// A field that there is not is named, instead of being left out silently.
func TestUnknownFieldIsNamed(t *testing.T) {
	w := newWorld(t)
	ann := w.person(authzv1.Role_ROLE_OPERATOR, "ann")
	code, body := w.rest(ann, "POST", "/v1/services", strings.NewReader(`{"spec": {"replicaz": 3}}`))
	if code != http.StatusBadRequest || !strings.Contains(body, "replicaz") {
		t.Fatalf("%d %s, want 400 and the field's name", code, body)
	}
}

// An error of the store arrives with its HTTP code, its words, and every field that was at fault.
func TestErrors(t *testing.T) {
	w := newWorld(t)
	ann := w.person(authzv1.Role_ROLE_OPERATOR, "ann")
	for _, c := range []struct {
		err  error
		code int
		want []string
	}{
		{errs.Faults("create service", errs.Fault{Field: "spec.name", Reason: "too long"}, errs.Fault{Field: "spec.mode", Reason: "unknown"}),
			http.StatusBadRequest, []string{`"field":"spec.name"`, `"description":"too long"`, `"field":"spec.mode"`}},
		{errs.New(errs.Exists, `service "web" exists`), http.StatusConflict, []string{"exists"}},
		{errs.New(errs.NotFound, "no such network"), http.StatusNotFound, []string{"no such network"}},
		{errs.New(errs.Precondition, "network is gone"), http.StatusBadRequest, []string{"network is gone"}},
		{errs.New(errs.Conflict, "update out of sequence"), http.StatusConflict, []string{"out of sequence"}},
		{errs.New(errs.Exhausted, "pool is full"), http.StatusTooManyRequests, []string{"pool is full"}},
		{errs.New(errs.Denied, "not you"), http.StatusForbidden, []string{"not you"}},
	} {
		w.answers(c.err)
		code, body := w.rest(ann, "POST", "/v1/services", strings.NewReader(create))
		// The encoder puts blanks where it likes, on purpose.
		flat := strings.ReplaceAll(body, `": `, `":`)
		if code != c.code {
			t.Errorf("%v: %d %s, want %d", c.err, code, body, c.code)
		}
		for _, want := range c.want {
			if !strings.Contains(flat, want) {
				t.Errorf("%v: %s, want %s in it", c.err, body, want)
			}
		}
		_, err := controlv1.NewServiceServiceClient(w.dial(ann)).CreateService(t.Context(), &controlv1.CreateServiceRequest{})
		if errs.KindOf(err) != errs.KindOf(c.err) || len(errs.FaultsOf(err)) != len(errs.FaultsOf(c.err)) {
			t.Errorf("gRPC: %v, want %v with its faults", err, c.err)
		}
	}
}

// A person's tool can ask which services there are.
func TestReflection(t *testing.T) {
	w := newWorld(t)
	s, err := reflectionv1.NewServerReflectionClient(w.dial(w.person(authzv1.Role_ROLE_VIEWER, "eve"))).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
	}); err != nil {
		t.Fatal(err)
	}
	resp, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, service := range resp.GetListServicesResponse().GetService() {
		listed[service.GetName()] = true
	}
	for _, want := range []string{
		"shoal.control.v1.ServiceService", "shoal.control.v1.TaskService", "shoal.control.v1.NodeService",
		"shoal.control.v1.NetworkService", "shoal.control.v1.ClusterService", "shoal.control.v1.MemberService",
		"shoal.ca.v1.TokenService", "shoal.control.v1.PreviewService", "shoal.scheduler.v1.ExplainService", "shoal.scheduler.v1.PlanService",
	} {
		if !listed[want] {
			t.Errorf("%s is not listed", want)
		}
	}
	if listed["shoal.store.v1.CommitService"] {
		t.Error("the store's raw API is offered")
	}
}

// A gateway puts itself into the directory.
func TestAnnounces(t *testing.T) {
	w := newWorld(t)
	select {
	case r := <-w.announce:
		if len(r.GetAddresses()) != 1 || r.GetAddresses()[0] != "gw:2384" {
			t.Fatalf("announced %v, want gw:2384", r.GetAddresses())
		}
	case <-time.After(10 * time.Second):
		t.Fatal("not announced")
	}
}

// Who is put on the deny list is refused from then on.
func TestDeniedPersonIsRefused(t *testing.T) {
	w := newWorld(t)
	eve := w.person(authzv1.Role_ROLE_VIEWER, "eve")
	conn := w.dial(eve)
	get := func() error {
		_, err := controlv1.NewServiceServiceClient(conn).GetService(t.Context(), &controlv1.GetServiceRequest{Service: "web"})
		return err
	}
	if err := get(); err != nil {
		t.Fatal(err)
	}
	w.objects.Put(state.Wrap(&typesv1.Denial{Meta: &typesv1.Meta{Id: eve.ID().Member()}}))
	patience, tick := time.NewTimer(10*time.Second), time.NewTicker(20*time.Millisecond)
	defer patience.Stop()
	defer tick.Stop()
	for get() == nil {
		select {
		case <-tick.C:
		case <-patience.C:
			t.Fatal("still served 10 s after the denial")
		}
	}
}
