package apply_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/apply"
	"github.com/shoalproject/shoal/services/meshproxy/internal/forward"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/meshproxytest"
)

// machine is a loop on fake tables, with what it tells.
type machine struct {
	env    run.Env
	tables *meshproxytest.Tables

	mu      sync.Mutex // guards all below
	ports   []mesh.Port
	unbound []forward.Unbound
	opened  func([]mesh.Listener) // is told what is listened on, when it is
	health  map[string]string
}

func newMachine(t *testing.T) *machine {
	return &machine{env: testx.Env(t), tables: meshproxytest.NewTables(), health: map[string]string{}}
}

func (m *machine) Apply(_ context.Context, ports []mesh.Port, _ map[string][]string, opening func([]mesh.Listener) error) ([]forward.Unbound, error) {
	var fresh []mesh.Listener
	for _, p := range ports {
		if !slices.ContainsFunc(m.open(), func(o mesh.Port) bool { return o.Listener == p.Listener }) {
			fresh = append(fresh, p.Listener)
		}
	}
	if len(fresh) > 0 {
		if err := opening(fresh); err != nil {
			return nil, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ports = ports; m.opened != nil {
		m.opened(fresh)
	}
	return m.unbound, nil
}

func (m *machine) Set(part string, ok bool, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.health[part] = why; ok {
		m.health[part] = "ok"
	}
}

// close is what the end of the process does.
func (m *machine) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ports = nil
}

// told is what the health says of a part.
func (m *machine) told(part string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.health[part]
}

// open are the ports in force.
func (m *machine) open() []mesh.Port {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ports
}

// start runs a loop until the returned function is called.
func (m *machine) start(t *testing.T, parts ...apply.Part) (*apply.Loop, func()) {
	l := apply.New(m.env, "a", []string{"198.51.100.1"}, "/data/tables.pb", m.tables, m, m, parts...)
	l.Load()
	ctx, cancel := context.WithCancel(t.Context())
	g := run.NewGroup(m.env.Log)
	g.Go("apply", l.Run)
	g.Go("watch", l.Watch)
	done := make(chan error, 1)
	go func() { done <- g.Wait(ctx) }()
	return l, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func full(revision uint64) *dispatcherv1.EndpointsResponse {
	return &dispatcherv1.EndpointsResponse{
		Version: &typesv1.Version{Revision: revision}, Full: true,
		Machines: []*dispatcherv1.MeshMachine{{NodeId: "a", Vteps: []string{"198.51.100.1"}, Blocks: []string{"10.128.1.0/24"}}},
		Services: []*dispatcherv1.MeshService{{
			ServiceId: "s", Name: "web", Ports: []*typesv1.PortConfig{{TargetPort: 8000, PublishedPort: 30000}},
			Endpoints: []*dispatcherv1.MeshEndpoint{{TaskId: "t", NodeId: "a", Addresses: []string{"10.128.1.5"}, Slot: 1}},
		}},
		Networks: []*dispatcherv1.MeshNetwork{{NetworkId: "n", Name: "front", Vni: 4097}},
	}
}

func revision(l *apply.Loop) uint64 {
	v, _ := l.Applied()
	return v.GetRevision()
}

// slow is a part that takes long: to put a model in force, and to clear away after it.
type slow struct{ apply, forget time.Duration }

func (s slow) Apply(context.Context, *mesh.Model) error { time.Sleep(s.apply); return nil }
func (s slow) Forget() error                            { time.Sleep(s.forget); return nil }

// TestBarrier: a version is reported when it is in force in every part, not before, and is not held up by what is cleared away
// after it.
func TestBarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		l, stop := m.start(t, slow{apply: time.Second, forget: 5 * time.Second})
		defer stop()
		if err := l.Take(full(7)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(990 * time.Millisecond)
		if r := revision(l); r != 0 {
			t.Errorf("revision %d is reported while a part works on it", r)
		}
		time.Sleep(20 * time.Millisecond)
		if r := revision(l); r != 7 {
			t.Errorf("revision %d is reported once it is in force, want 7", r)
		}
	})
}

func TestReportsOnlyWhatIsInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		l, stop := m.start(t)
		defer stop()
		m.tables.Fail(errors.New("no such device"))
		if err := l.Take(full(7)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := revision(l); got != 0 {
			t.Errorf("reported %d while the tables failed", got)
		}
		if !strings.Contains(m.told("tables"), "no such device") {
			t.Errorf("health says %q", m.told("tables"))
		}
		if len(m.open()) != 1 || m.open()[0].Backends[0].Address.String() != "10.128.1.5:8000" {
			t.Errorf("ports are %v: the forwarder must not wait for the tables", m.open())
		}
		m.tables.Fail(nil)
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if got := revision(l); got != 7 || m.told("tables") != "ok" {
			t.Errorf("reported %d, health %q; want 7 soon after the tables work", got, m.told("tables"))
		}
		// A port that another process has is told, and holds nothing up.
		m.mu.Lock()
		m.unbound = []forward.Unbound{{Listener: mesh.Listener{Network: "tcp", Port: 30000}, Err: errors.New("address already in use")}}
		m.mu.Unlock()
		if err := l.Take(full(8)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := revision(l); got != 8 || !strings.Contains(m.told("ports"), "tcp/30000: address already in use") {
			t.Errorf("reported %d, health %q", got, m.told("ports"))
		}
		// Of thousands, as where the machine's own connections have them, a few are named: each is looked up among all sockets.
		m.mu.Lock()
		for port := range uint16(1000) {
			m.unbound = append(m.unbound, forward.Unbound{Listener: mesh.Listener{Network: "tcp", Port: 40000 + port}, Err: errors.New("address already in use")})
		}
		m.mu.Unlock()
		if err := l.Take(full(9)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if told := m.told("ports"); !strings.Contains(told, "40014") || strings.Contains(told, "40015") || !strings.HasSuffix(told, "and 985 more ports") {
			t.Errorf("health %q", told)
		}
	})
}

func TestRestartWithoutControlPlaneServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		l, stop := m.start(t)
		if err := l.Take(full(7)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		stop()
		steps := m.tables.Steps()
		if want := []string{"shoal-mesh", "shoal0", "shoalbr4097", "shoalvx4097"}; !slices.Equal(m.tables.Links(), want) {
			t.Errorf("after the stop there is %s, want %s", m.tables.Links(), want)
		}
		m.close()
		l, stop = m.start(t)
		defer stop()
		synctest.Wait()
		if revision(l) != 7 || len(m.open()) != 1 {
			t.Errorf("after the restart: revision %d, ports %v", revision(l), m.open())
		}
		if m.tables.Steps() != steps {
			t.Errorf("the restart took %d steps in the kernel, want none: what is there is adopted", m.tables.Steps()-steps)
		}
		if err := l.Take(full(6)); err == nil {
			t.Error("older tables were taken")
		}
	})
}

// A machine that is left out is so in force, and not in what is kept for the next start; it is back when it is left out no more.
func TestLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		l, stop := m.start(t)
		defer stop()
		r := full(7)
		r.Services[0].Endpoints = append(r.Services[0].Endpoints, &dispatcherv1.MeshEndpoint{TaskId: "u", NodeId: "b", Addresses: []string{"10.128.2.5"}, Slot: 2})
		if err := l.Take(r); err != nil {
			t.Fatal(err)
		}
		behind := func(want int) {
			t.Helper()
			time.Sleep(time.Second)
			if got := len(m.open()[0].Backends); got != want {
				t.Errorf("%d tasks behind the port, want %d", got, want)
			}
		}
		behind(2)
		l.LeaveOut(map[string]bool{"b": true})
		behind(1)
		if err := l.Take(&dispatcherv1.EndpointsResponse{Version: &typesv1.Version{Revision: 8}}); err != nil {
			t.Fatal(err)
		}
		behind(1)
		time.Sleep(time.Minute)
		again, end := m.start(t)
		behind(2)
		end()
		if revision(again) != 8 {
			t.Errorf("kept revision %d", revision(again))
		}
		l.LeaveOut(nil)
		behind(2)
	})
}

func TestWithoutTablesNothingIsTouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		_, stop := m.start(t)
		defer stop()
		if err := m.env.Files.Write("/data/tables.pb", []byte("not tables"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, again := m.start(t)
		defer again()
		time.Sleep(time.Minute)
		synctest.Wait()
		if m.tables.Steps() != 0 || m.open() != nil {
			t.Errorf("%d steps and ports %v without a model", m.tables.Steps(), m.open())
		}
	})
}

func TestWhatIsLostComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		l, stop := m.start(t)
		defer stop()
		if err := l.Take(full(7)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		m.tables.Lose("shoalbr4097")
		time.Sleep(11 * time.Second)
		if !m.tables.HasBridge(4097) {
			t.Errorf("after 11 s there is %s", m.tables.Links())
		}
	})
}

// The file may be older than what is in force. A network that has come since keeps its bridge, which its containers are on, until a
// dispatcher says that it is gone.
func TestOldTablesTakeNothingAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		l, stop := m.start(t)
		if err := l.Take(full(7)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		stop()
		before := m.tables.Links()
		without := m.keepOld(t)
		l, stop = m.start(t)
		defer stop()
		time.Sleep(11 * time.Second)
		if !slices.Equal(m.tables.Links(), before) {
			t.Errorf("with old tables there is %s, was %s", m.tables.Links(), before)
		}
		if err := l.Take(without); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if m.tables.HasBridge(4097) {
			t.Errorf("a network that is gone has left %s", m.tables.Links())
		}
	})
}

// Connections to tasks that have come since the file was written go on: by old tables nobody looks for those to tasks that he does not know.
func TestOldTablesEndNoConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		told := full(7)
		told.MachineNetwork = "10.128.0.0/10"
		l, stop := m.start(t)
		if err := l.Take(told); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		stop()
		first, part := m.tables.Sweeps(), &clearing{}
		l, stop = m.start(t, part)
		defer stop()
		time.Sleep(11 * time.Second)
		if first == 0 || m.tables.Sweeps() != first || part.n.Load() != 0 {
			t.Errorf("by the tables of the file they were looked for: %d times at first, %d now, %d in the parts", first, m.tables.Sweeps(), part.n.Load())
		}
		if err := l.Take(told); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if m.tables.Sweeps() == first || part.n.Load() == 0 {
			t.Error("when a dispatcher had told the tables they were not looked for")
		}
	})
}

// clearing is a part that counts how often it has cleared away.
type clearing struct{ n atomic.Int32 }

func (c *clearing) Apply(context.Context, *mesh.Model) error { return nil }
func (c *clearing) Forget() error                            { c.n.Add(1); return nil }

// witness is a part that reads the file of tables whenever a model is about to be in force.
type witness struct {
	env  run.Env
	kept []string // who may call by the file, each time
}

func (w *witness) Apply(context.Context, *mesh.Model) error {
	kept := &dispatcherv1.EndpointsResponse{}
	data, err := w.env.Files.Read("/data/tables.pb")
	if err == nil {
		err = proto.Unmarshal(data, kept)
	}
	said := "nothing is kept"
	if err == nil {
		said = "anybody"
	}
	for _, c := range kept.GetCallers() {
		said = strings.Join(c.GetCallers().GetPrefixes(), " ")
	}
	w.kept = append(w.kept, said)
	return nil
}

func (w *witness) Forget() error { return nil }

// What closes a service to somebody is kept before it is in force, however lately the file was written: after a kill it would be open to
// him again, for as long as no dispatcher is there. A task that has ended is nobody.
func TestCallersAreKeptBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		w := &witness{env: m.env}
		l, stop := m.start(t, w)
		defer stop()
		for i, callers := range [][]string{nil, {"10.0.0.5", "10.0.0.6", "192.0.2.0/24"}, {"10.0.0.5", "10.0.0.6"}, {"10.0.0.6"}, {}} {
			r := &dispatcherv1.EndpointsResponse{Version: &typesv1.Version{Revision: uint64(7 + i)}, Full: true}
			if i > 0 {
				r.Callers = []*dispatcherv1.ServiceCallers{{ServiceId: "s", Callers: &dispatcherv1.Callers{Prefixes: callers}}}
			}
			r.Networks = []*dispatcherv1.MeshNetwork{{NetworkId: "n", Vni: 4097, Entries: []*dispatcherv1.NetworkEntry{{TaskId: "t", NodeId: "b", Addresses: []string{"10.0.0.6"}}}}}
			if err := l.Take(r); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		got := strings.Join(slices.Compact(w.kept), ", ")
		if want := "nothing is kept, 10.0.0.5 10.0.0.6 192.0.2.0/24, 10.0.0.5 10.0.0.6, "; got != want {
			t.Errorf("kept when it was about to be in force:\n%s, want\n%s", got, want)
		}
	})
}

// What holds back an encrypted network's packets stays while only tables of before the network are known, also where nothing encrypts at
// the moment: the network's tunnel stays too.
func TestOldTablesOpenNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		rules := func() string {
			k, err := m.tables.Read(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			return k.Rules.Mark
		}
		l, stop := m.start(t)
		vault := full(7)
		vault.Networks[0].Encrypted = true
		if err := l.Take(vault); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		stop()
		before := rules()
		without := m.keepOld(t)
		l, stop = m.start(t)
		defer stop()
		time.Sleep(11 * time.Second)
		if now := rules(); now != before {
			t.Errorf("with old tables the rules are %s, were %s", now, before)
		}
		if err := l.Take(without); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if rules() == before {
			t.Error("a network that is gone has left its rules")
		}
	})
}

// keepOld makes the kept tables those of before the networks of version 7. What it gives are later ones that have none any more.
func (m *machine) keepOld(t *testing.T) (without *dispatcherv1.EndpointsResponse) {
	t.Helper()
	old, without := full(6), full(8)
	old.Networks, without.Networks = nil, nil
	data, err := proto.Marshal(old)
	if err == nil {
		err = m.env.Files.Write("/data/tables.pb", data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return without
}
