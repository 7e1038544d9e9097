package machine_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/layout"
	"github.com/shoalproject/shoal/cli/internal/machine"
)

const (
	agent      = authzv1.Role_ROLE_AGENT
	meshproxy  = authzv1.Role_ROLE_MESHPROXY
	dispatcher = authzv1.Role_ROLE_DISPATCHER
	gatewayOf  = authzv1.Role_ROLE_GATEWAY
	store      = authzv1.Role_ROLE_STORE
)

// inCluster is a host beside a CA.
func inCluster(t *testing.T, f func(t *testing.T, h *host, ca *authority)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		ca, stop := h.authority(t)
		defer stop()
		f(t, h, ca)
	})
}

func (h *host) join(ctx context.Context, token enroll.Token, roles ...authzv1.Role) (machine.Joined, error) {
	return h.machine().Join(ctx, machine.Join{Token: token.String(), Address: "10.0.0.9", Roles: roles})
}

func joinAll(ca *authority, learner bool) machine.Join {
	return machine.Join{Token: ca.manager.String(), Address: "10.0.0.9", Learner: learner}
}

// units are those that run, in order.
func (h *host) units() string {
	var out []string
	for u := range h.active {
		out = append(out, strings.TrimPrefix(u, "shoal-"))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (h *host) has(t *testing.T, file, text string) {
	t.Helper()
	if data, _ := h.env.Files.Read(file); !strings.Contains(string(data), text) {
		t.Errorf("%s is %q, wanted %q in it", file, data, text)
	}
}

// A machine gets what is named and no more, and more later; what is there learns of what comes.
func TestRolesAreAddedOneByOne(t *testing.T) {
	inCluster(t, func(t *testing.T, h *host, ca *authority) {
		if done, err := h.join(t.Context(), ca.worker, meshproxy); err != nil || len(done.Had) != 0 || h.units() != "meshproxy" {
			t.Fatalf("%+v, %v, units %s", done, err, h.units())
		}
		h.has(t, "/etc/shoal/meshproxy.yaml", "ingress: true")
		h.calls = nil
		done, err := h.join(t.Context(), ca.worker, agent, meshproxy)
		if want := (machine.Joined{Machine: done.Machine, Roles: []authzv1.Role{agent}, Had: []authzv1.Role{meshproxy}}); err != nil || cmp.Diff(want, done) != "" {
			t.Errorf("%v, %s", err, cmp.Diff(want, done))
		}
		h.has(t, "/etc/shoal/meshproxy.yaml", "ingress: false")
		h.has(t, "/etc/shoal/agent.yaml", "mesh_port: 2385")
		want := []string{"systemctl restart shoal-meshproxy", "systemctl enable shoal-agent", "systemctl start shoal-agent"}
		if diff := cmp.Diff(want, h.calls[len(h.calls)-3:]); diff != "" {
			t.Error(diff)
		}
		h.calls = nil
		if _, err := h.machine().Join(t.Context(), machine.Join{
			Token: ca.manager.String(), Address: "10.0.0.9", Roles: []authzv1.Role{dispatcher, store}, Learner: true,
		}); err != nil || h.units() != "agent dispatcher meshproxy store" {
			t.Errorf("%v, units %s", err, h.units())
		}
		h.has(t, "/etc/shoal/store.yaml", "learner: true")
		if slices.Contains(h.calls, "systemctl restart shoal-meshproxy") || slices.Contains(h.calls, "systemctl restart shoal-agent") {
			t.Errorf("it restarted what need not know: %v", h.calls)
		}
	})
}

func TestRolesThatCannotBeAddedAreRefusedBeforeAnything(t *testing.T) {
	inCluster(t, func(t *testing.T, h *host, ca *authority) {
		if _, err := h.join(t.Context(), ca.worker, agent, meshproxy); err != nil {
			t.Fatal(err)
		}
		before, calls := h.files(t), ca.calls
		for name, c := range map[string]struct {
			req  machine.Join
			says string
		}{
			"nothing new":      {machine.Join{Token: ca.worker.String(), Roles: []authzv1.Role{agent}}, "nothing to add"},
			"no roles":         {machine.Join{Token: ca.worker.String()}, "already part of a cluster"},
			"another cluster":  {machine.Join{Token: enroll.NewToken(h.env.Rand, []byte("other")).String(), Roles: []authzv1.Role{gatewayOf}}, "belongs to another cluster"},
			"learner, but who": {machine.Join{Token: ca.manager.String(), Roles: []authzv1.Role{gatewayOf}, Learner: true}, "--learner is for a store"},
		} {
			c.req.Address = "10.0.0.9"
			if _, err := h.machine().Join(t.Context(), c.req); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v, wanted %q", name, err, c.says)
			}
		}
		if ca.calls != calls {
			t.Error("the CA was asked")
		}
		// A worker's token for a manager's role: only the CA can tell.
		if _, err := h.join(t.Context(), ca.worker, dispatcher); !errs.Is(err, errs.Denied) {
			t.Errorf("got %v", err)
		}
		bare := newHost(t)
		bare.env.Net, bare.ca = h.env.Net, h.ca
		req := machine.Join{Token: ca.worker.String(), Address: "10.0.0.9", Learner: true}
		if _, err := bare.machine().Join(t.Context(), req); !errs.Is(err, errs.Denied) || len(bare.files(t)) > 0 {
			t.Errorf("a worker as a learner: %v, %v", err, bare.files(t))
		}
		if diff := cmp.Diff(before, h.files(t)); diff != "" || h.units() != "agent meshproxy" {
			t.Errorf("it changed %s, units %s", diff, h.units())
		}
	})
}

// A process that does not start takes nothing with it that was there before.
func TestAFailedAdditionLeavesTheRestAsItWas(t *testing.T) {
	inCluster(t, func(t *testing.T, h *host, ca *authority) {
		if _, err := h.join(t.Context(), ca.worker, meshproxy); err != nil {
			t.Fatal(err)
		}
		before, _ := h.env.Files.Read("/etc/shoal/meshproxy.yaml")
		h.fail, h.journal = "systemctl start shoal-agent", "the last words of it"
		if _, err := h.join(t.Context(), ca.worker, agent); err == nil || !strings.Contains(err.Error(), "start shoal-agent: it did not work\nthe last words of it") {
			t.Fatalf("got %v", err)
		}
		after, _ := h.env.Files.Read("/etc/shoal/meshproxy.yaml")
		if string(before) != string(after) || h.units() != "meshproxy" || !h.enabled["shoal-meshproxy"] {
			t.Errorf("meshproxy.yaml is %q, units %s", after, h.units())
		}
		if last := h.calls[len(h.calls)-1]; last != "systemctl restart shoal-meshproxy" {
			t.Errorf("the meshproxy runs with the configuration that was taken back: %s", last)
		}
		if slices.Contains(h.calls, "shoal-meshproxy reset") {
			t.Error("it took away what the meshproxy has made")
		}
	})
}

// letting is a cluster that notes what it is asked.
type letting struct {
	asked  []string
	refuse string
	gone   []string // members that were removed before
}

func (l *letting) note(what string) error {
	l.asked = append(l.asked, what)
	if what == l.refuse {
		return errs.New(errs.Precondition, "no other is there")
	}
	if _, member, _ := strings.Cut(what, " "); slices.Contains(l.gone, member) {
		return errs.New(errs.NotFound, "no member is called %s", member)
	}
	return nil
}

func (l *letting) Drain(_ context.Context, member string) error { return l.note("drain " + member) }
func (l *letting) Activate(_ context.Context, member string) error {
	return l.note("activate " + member)
}
func (l *letting) Remove(_ context.Context, member string, _ bool) error {
	return l.note("remove " + member)
}

func TestRolesAreGivenBack(t *testing.T) {
	inCluster(t, func(t *testing.T, h *host, ca *authority) {
		if _, err := h.join(t.Context(), ca.manager, store, dispatcher, agent, meshproxy); err != nil {
			t.Fatal(err)
		}
		id := h.machine().ID()
		h.calls = nil
		cluster := &letting{}
		left, err := h.machine().Leave(t.Context(), machine.Leave{Roles: []authzv1.Role{agent, store}, Cluster: cluster})
		if err != nil || layout.Names(left.Roles) != "agent, store" || layout.Names(left.Stay) != "dispatcher, meshproxy" || h.units() != "dispatcher meshproxy" {
			t.Errorf("%+v, %v, units %s", left, err, h.units())
		}
		want := []string{"drain agent/" + id, "remove agent/" + id, "drain store/" + id, "remove store/" + id}
		if diff := cmp.Diff(want, cluster.asked); diff != "" {
			t.Error(diff)
		}
		want = []string{"systemctl disable --now shoal-agent", "shoal-agent reset", "systemctl disable --now shoal-store", "systemctl restart shoal-meshproxy"}
		if diff := cmp.Diff(want, h.calls); diff != "" {
			t.Error(diff)
		}
		h.has(t, "/etc/shoal/meshproxy.yaml", "ingress: true")
		for _, f := range h.files(t) {
			if strings.Contains(f, "/agent") || strings.Contains(f, "/store") {
				t.Errorf("%s stayed", f)
			}
		}
		if h.machine().ID() != id {
			t.Error("the machine's id went with a part of it")
		}
		// The last ones take the machine with them.
		if _, err := h.machine().Leave(t.Context(), machine.Leave{Roles: []authzv1.Role{dispatcher, meshproxy}, Cluster: cluster}); err != nil || len(h.files(t)) > 0 {
			t.Errorf("%v, and %v stayed", err, h.files(t))
		}
	})
}

func TestAProcessThatMayNotLeaveStays(t *testing.T) {
	for _, refuse := range []string{"drain", "remove"} {
		inCluster(t, func(t *testing.T, h *host, ca *authority) {
			if _, err := h.join(t.Context(), ca.manager, dispatcher, meshproxy); err != nil {
				t.Fatal(err)
			}
			member := "dispatcher/" + h.machine().ID()
			before := h.files(t)
			cluster := &letting{refuse: refuse + " " + member}
			leave := machine.Leave{Roles: []authzv1.Role{dispatcher}, Cluster: cluster}
			if _, err := h.machine().Leave(t.Context(), leave); err == nil || !strings.Contains(err.Error(), "no other is there") {
				t.Errorf("got %v", err)
			}
			if diff := cmp.Diff(before, h.files(t)); diff != "" || h.units() != "dispatcher meshproxy" {
				t.Errorf("it changed %s, units %s", diff, h.units())
			}
			if !slices.Contains(cluster.asked, "activate "+member) {
				t.Errorf("it stays drained: %v", cluster.asked)
			}
			leave.Force = true
			if _, err := h.machine().Leave(t.Context(), leave); err != nil || h.units() != "meshproxy" {
				t.Errorf("by force: %v, units %s", err, h.units())
			}
		})
	}
}

func TestLeavingRolesTakesSomebodyToAsk(t *testing.T) {
	inCluster(t, func(t *testing.T, h *host, ca *authority) {
		if _, err := h.join(t.Context(), ca.manager, dispatcher, agent, meshproxy); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			roles []authzv1.Role
			says  string
		}{
			{[]authzv1.Role{dispatcher}, "no operator's context"},
			{[]authzv1.Role{store, agent}, "this machine has no store"},
		} {
			if _, err := h.machine().Leave(t.Context(), machine.Leave{Roles: c.roles}); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, wanted %q", err, c.says)
			}
		}
		// An agent may go unasked; then its key stays, with which it proves itself when it comes back.
		key, _ := h.env.Files.Read("/var/lib/shoal/agent/identity/key.pem")
		if _, err := h.machine().Leave(t.Context(), machine.Leave{Roles: []authzv1.Role{agent}}); err != nil {
			t.Error(err)
		}
		if kept, _ := h.env.Files.Read("/var/lib/shoal/agent/identity/key.pem.next"); string(kept) != string(key) || len(key) == 0 {
			t.Error("the key that the cluster knows is lost")
		}
		if _, err := h.join(t.Context(), ca.worker, agent); err != nil || h.units() != "agent dispatcher meshproxy" {
			t.Errorf("%v, units %s", err, h.units())
		}
	})
}

// A machine whose processes others use leaves them role by role, too, when all go.
func TestAMachineThatOthersUseAsksBeforeItLeaves(t *testing.T) {
	inCluster(t, func(t *testing.T, h *host, ca *authority) {
		if _, err := h.join(t.Context(), ca.manager, dispatcher, agent, meshproxy); err != nil {
			t.Fatal(err)
		}
		id := h.machine().ID()
		if _, err := h.machine().Leave(t.Context(), machine.Leave{}); err == nil || !strings.Contains(err.Error(), "others use dispatcher") || h.units() != "agent dispatcher meshproxy" {
			t.Errorf("%v, units %s", err, h.units())
		}
		cluster := &letting{}
		if _, err := h.machine().Leave(t.Context(), machine.Leave{Cluster: cluster}); err != nil || len(h.files(t)) > 0 || len(h.active) > 0 {
			t.Errorf("%v, %v stayed, units %s", err, h.files(t), h.units())
		}
		want := []string{"drain agent/" + id, "remove agent/" + id, "drain meshproxy/" + id, "remove meshproxy/" + id, "drain dispatcher/" + id, "remove dispatcher/" + id}
		if diff := cmp.Diff(want, cluster.asked); diff != "" {
			t.Error(diff)
		}
	})
}

func TestEachProcessGetsItsFiles(t *testing.T) {
	inCluster(t, func(t *testing.T, h *host, ca *authority) {
		h.users = map[string]int{"shoal-dispatcher": 71, "shoal-store": 72}
		if _, err := h.join(t.Context(), ca.manager); err != nil {
			t.Fatal(err)
		}
		want := map[string][2]int{
			"/var/lib/shoal/dispatcher": {71, 71}, "/etc/shoal/dispatcher.yaml": {0, 71},
			"/var/lib/shoal/store": {72, 72}, "/etc/shoal/store.yaml": {0, 72},
		}
		if diff := cmp.Diff(want, h.owned); diff != "" {
			t.Error(diff)
		}
	})
}

func TestResetTakesBackWhateverIsThere(t *testing.T) {
	inCluster(t, func(t *testing.T, h *host, ca *authority) {
		if _, err := h.join(t.Context(), ca.manager); err != nil {
			t.Fatal(err)
		}
		// Half of it is gone already.
		for _, f := range []string{"/etc/shoal/agent.yaml", "/var/lib/shoal/machine-id", "/var/lib/shoal/agent/identity/key.pem"} {
			if err := h.env.Files.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.env.Files.Write("/run/shoal/mesh/mesh.sock", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		h.fail = "shoal-agent reset -any"
		done, err := h.machine().Reset(t.Context())
		if err != nil || len(done.Faults) != 1 || !strings.Contains(done.Faults[0].Error(), "containers and their networks: ") {
			t.Errorf("%v, %v", err, done.Faults)
		}
		if len(h.files(t)) > 0 || len(h.active)+len(h.enabled) > 0 {
			t.Errorf("%v stayed, and units %v", h.files(t), h.active)
		}
		for _, what := range []string{"unit shoal-store", "/var/lib/shoal/store", "/etc/shoal/ca.yaml", "/run/shoal/mesh", "interfaces, routes and rules"} {
			if !slices.Contains(done.Removed, what) {
				t.Errorf("%q is not among what it says it removed: %v", what, done.Removed)
			}
		}
		h.fail = ""
		if done, err := h.machine().Reset(t.Context()); err != nil || len(done.Faults) > 0 {
			t.Errorf("a second time: %v, %v", err, done.Faults)
		}
	})
}

var errFull = errors.New("no space left on device")
