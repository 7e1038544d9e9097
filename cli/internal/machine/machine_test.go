package machine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/contexts"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"

	"github.com/shoalproject/shoal/cli/internal/doctor"
	"github.com/shoalproject/shoal/cli/internal/layout"
	"github.com/shoalproject/shoal/cli/internal/machine"
)

const configFolder = "/home/ada/.config/shoal"

// host is a machine in memory: its units, and programs that behave as told.
type host struct {
	env     run.Env
	ca      *identitytest.Authority
	root    bool
	address string

	mu      sync.Mutex // guards all below
	enabled map[string]bool
	active  map[string]bool
	calls   []string
	fail    string // a program's call that fails: "systemctl start shoal-agent"
	hang    string // what all program's calls that do not end by themselves begin with
	told    []string
	left    doctor.Space
	users   map[string]int    // by name: uid and gid are the same
	owned   map[string][2]int // by path: who was given it
	found   string            // what shoal-agent doctor prints
	journal string            // what journalctl prints
}

func newHost(t *testing.T) *host {
	t.Helper()
	env := testx.Env(t)
	h := &host{env: env, ca: identitytest.New(t, env, "c1"), root: true, address: "10.0.0.1", enabled: map[string]bool{}, active: map[string]bool{},
		left: doctor.Space{Bytes: 10 << 30, Files: 1 << 20}, users: map[string]int{}, owned: map[string][2]int{}, found: "[]",
	}
	if err := env.Files.Write("/run/containerd/containerd.sock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) machine() *machine.Machine {
	return &machine.Machine{Env: h.env, Programs: h, Host: h, Tell: func(text string) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.told = append(h.told, text)
	}}
}

func (h *host) Find(name string) (string, error) { return "/bin/" + name, nil }

func (h *host) Run(ctx context.Context, name string, args ...string) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	line := path.Base(name) + " " + strings.Join(args, " ")
	h.calls = append(h.calls, line)
	if line == h.fail {
		return "", errors.New("it did not work")
	}
	if h.hang != "" && strings.HasPrefix(line, h.hang) {
		h.mu.Unlock()
		<-ctx.Done()
		h.mu.Lock()
		return "", fmt.Errorf("%s: %w", path.Base(name), context.Cause(ctx))
	}
	switch {
	case path.Base(name) == "systemctl":
		return "", h.systemctl(args)
	case strings.HasPrefix(line, "shoal-ca bootstrap"):
		return h.bootstrap(args[len(args)-1])
	case strings.HasSuffix(line, " -version"):
		return path.Base(name) + " " + run.FullVersion(), nil
	case strings.HasPrefix(line, "journalctl "):
		return h.journal, nil
	case strings.HasPrefix(line, "shoal-agent doctor"):
		return h.found, nil
	case strings.HasPrefix(line, "shoal-meshproxy doctor"):
		return "[]", nil
	}
	return "", nil
}

func (h *host) systemctl(args []string) error {
	verb, units := args[0], args[1:]
	for _, u := range units {
		u = strings.TrimSuffix(u, ".service")
		switch verb {
		case "enable":
			h.enabled[u] = true
		case "start":
			if !h.enabled[u] {
				return fmt.Errorf("%s is started before it is enabled", u)
			}
			h.active[u] = true
		case "restart":
			if !h.active[u] {
				return fmt.Errorf("%s does not run", u)
			}
		case "disable":
			delete(h.enabled, u)
			delete(h.active, u)
		case "is-enabled":
			if u != "--quiet" && !h.enabled[u] {
				return errors.New("disabled")
			}
		case "is-active":
			if u != "--quiet" && !h.active[u] {
				return errors.New("inactive")
			}
		}
	}
	return nil
}

// bootstrap does what shoal-ca does, as far as init looks.
func (h *host) bootstrap(config string) (string, error) {
	order, err := h.env.Files.Read(config)
	if err != nil {
		return "", err
	}
	if !strings.Contains(string(order), "operator: ada") || !strings.Contains(string(order), h.address) {
		return "", fmt.Errorf("the order is %q", order)
	}
	for _, role := range []string{"ca", "store", "scheduler", "dispatcher", "gateway", "agent", "meshproxy"} {
		if err := h.env.Files.Write("/var/lib/shoal/"+role+"/identity/"+identity.CertFile, []byte("x"), 0o644); err != nil {
			return "", err
		}
	}
	if err := h.env.Files.Write("/var/lib/shoal/machine-id", []byte("m1\n"), 0o644); err != nil {
		return "", err
	}
	var t testing.T
	key, err := identity.NewKey(h.env.Rand)
	if err != nil {
		return "", err
	}
	leaf := identitytest.Leaf{URIs: []string{h.ca.ID(authzv1.Role_ROLE_OPERATOR, "ada").URI()}}
	pem, err := identity.EncodeKey(key)
	if err != nil {
		return "", err
	}
	out, err := json.Marshal(map[string]any{
		"cluster_id": "c1", "machine_id": "m1", "operator_cert": string(h.ca.Sign(&t, leaf, &key.PublicKey)), "operator_key": string(pem),
		"bundle": string(h.ca.Bundle()), "gateways": []string{h.address + ":2384"}, "worker_token": "SHOAL-1-worker",
	})
	return string(out), err
}

func (h *host) Privileged() bool { return h.root }

func (h *host) Addresses() ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr(h.address)}, nil
}

func (h *host) Source(context.Context, string) (netip.Addr, error) {
	return netip.MustParseAddr(h.address), nil
}

func (h *host) Space(string) (doctor.Space, error) { return h.left, nil }

func (h *host) OpenFiles() (uint64, error) { return 1 << 20, nil }

func (h *host) Lookup(context.Context, string) ([]string, error) { return []string{h.address}, nil }

func (h *host) Account(user string) (uid, gid int, ok bool) {
	uid, ok = h.users[user]
	return uid, uid, ok
}

func (h *host) Owner(name string) (uid, gid int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := h.env.Files.Stat(name); err != nil {
		return 0, 0, err
	}
	return h.owned[name][0], h.owned[name][1], nil
}

func (h *host) Give(name string, uid, gid int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.owned[name] = [2]int{uid, gid}
	return nil
}

// Folder: a folder in memory is there with its first file.
func (*host) Folder(string, fs.FileMode) (bool, error) { return false, nil }

func (h *host) RemoveAll(dir string) error {
	if info, err := h.env.Files.Stat(dir); err != nil || !info.IsDir() {
		return h.env.Files.Remove(dir)
	}
	names, err := h.env.Files.List(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := h.RemoveAll(path.Join(dir, n)); err != nil {
			return err
		}
	}
	return h.env.Files.Remove(dir)
}

// files lists every file below the folders that shoal writes to.
func (h *host) files(t *testing.T) []string {
	t.Helper()
	var out []string
	var walk func(dir string)
	walk = func(dir string) {
		names, err := h.env.Files.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if info, err := h.env.Files.Stat(path.Join(dir, n)); err == nil && !info.IsDir() {
				out = append(out, path.Join(dir, n))
			} else {
				walk(path.Join(dir, n))
			}
		}
	}
	for _, dir := range []string{"/etc/shoal", "/var/lib/shoal", configFolder} {
		walk(dir)
	}
	return out
}

// gateway is the new cluster: the machine is ready at the third look.
type gateway struct {
	looks int
	never bool
}

func (g *gateway) Ready(context.Context, string) (bool, string, error) {
	g.looks++
	if g.looks == 1 {
		return false, "", errs.New(errs.Unavailable, "no gateway answers")
	}
	return g.looks > 2 && !g.never, "its agent has no session yet", nil
}

func (g *gateway) WorkerToken(context.Context) (string, error)           { return "SHOAL-1-a-b", nil }
func (g *gateway) SetAvailability(context.Context, string, string) error { return nil }
func (g *gateway) Close() error                                          { return nil }

func (h *host) initialize(ctx context.Context, g *gateway) (machine.Initialized, error) {
	return h.machine().Init(ctx, machine.Init{
		Operator: "ada", Contexts: contexts.New(h.env.Files, configFolder),
		Connect: func(contexts.Context) (machine.Gateway, error) { return g, nil },
	})
}

func TestInitMakesACluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		if err := h.env.Files.Write("/etc/shoal/store.yaml", []byte("metrics_listen: 127.0.0.1:9000\ndata: /elsewhere\n"), 0o640); err != nil {
			t.Fatal(err)
		}
		done, err := h.initialize(t.Context(), &gateway{})
		if err != nil {
			t.Fatal(err)
		}
		want := machine.Initialized{Machine: "m1", Context: "default", Token: "SHOAL-1-a-b", Address: "10.0.0.1:2377", Roles: layout.All()}
		if diff := cmp.Diff(want, done); diff != "" {
			t.Error(diff)
		}
		if len(h.active) != 7 || len(h.enabled) != 7 {
			t.Errorf("active %v, enabled %v", h.active, h.enabled)
		}
		data, _ := h.env.Files.Read("/etc/shoal/store.yaml")
		if got := string(data); got != "metrics_listen: 127.0.0.1:9000\ndata: /var/lib/shoal/store\nadvertise:\n- 10.0.0.1\n" {
			t.Errorf("store.yaml is %q", got)
		}
		if info, err := h.env.Files.Stat(configFolder + "/contexts/default/key.pem"); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the operator's key: %v, %v", info, err)
		}
		c, err := contexts.New(h.env.Files, configFolder).Pick("")
		if err != nil || c.Cluster != "c1" || !slices.Equal(c.Gateways, []string{"10.0.0.1:2384"}) {
			t.Errorf("the context in use is %+v, %v", c, err)
		}
		if slices.Contains(h.files(t), "/etc/shoal/bootstrap.yaml") {
			t.Error("the order to shoal-ca stayed")
		}
		if _, err := h.initialize(t.Context(), &gateway{}); !errs.Is(err, errs.Precondition) || !strings.Contains(err.Error(), "already part of a cluster") {
			t.Errorf("init twice: %v", err)
		}
		if len(h.active) != 7 {
			t.Error("the second init stopped what the first had started")
		}
	})
}

// TestAFailedInitTakesEverythingBack lets each step fail in turn.
func TestAFailedInitTakesEverythingBack(t *testing.T) {
	for _, fail := range []string{
		"shoal-ca bootstrap -config /etc/shoal/bootstrap.yaml", "systemctl start shoal-store", "systemctl start shoal-agent",
		"systemctl enable shoal-store shoal-ca shoal-scheduler shoal-dispatcher shoal-gateway shoal-meshproxy shoal-agent", "ready", "ctrl-c",
	} {
		t.Run(fail, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t)
				h.fail = fail
				if err := h.env.Files.Write("/etc/shoal/ca.yaml", []byte("log_level: debug\n"), 0o640); err != nil {
					t.Fatal(err)
				}
				before := h.files(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if fail == "ctrl-c" {
					time.AfterFunc(5*time.Second, cancel)
				}
				_, err := h.initialize(ctx, &gateway{never: fail == "ready" || fail == "ctrl-c"})
				if err == nil {
					t.Fatal("it succeeded")
				}
				if diff := cmp.Diff(before, h.files(t)); diff != "" {
					t.Errorf("files: %s", diff)
				}
				if data, _ := h.env.Files.Read("/etc/shoal/ca.yaml"); string(data) != "log_level: debug\n" {
					t.Errorf("ca.yaml is %q", data)
				}
				if len(h.enabled) != 0 || len(h.active) != 0 {
					t.Errorf("enabled %v, active %v", h.enabled, h.active)
				}
				// Nothing is in the way of a second try.
				h.fail = ""
				if _, err := h.initialize(t.Context(), &gateway{}); err != nil {
					t.Errorf("second try: %v", err)
				}
			})
		})
	}
}

func TestPreflightTellsAllFaultsAndChangesNothing(t *testing.T) {
	h := newHost(t)
	h.root = false
	h.left = doctor.Space{Bytes: 1 << 20, Files: 10000}
	if err := h.env.Files.Write("/etc/shoal/agent.yaml", []byte("no_such_key: 1\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	h.fail = "shoal-agent -check -config /etc/shoal/agent.yaml.check"
	before := h.files(t)
	_, err := h.machine().Init(t.Context(), machine.Init{Advertise: "10.9.9.9", Listen: "nowhere", Contexts: contexts.New(h.env.Files, configFolder)})
	want := "init: 5 faults\n  root: this takes root; run the command with sudo\n" +
		"  listen-addr: \"nowhere\" is no IP address (each process has its own port)\n" +
		"  disk: 1 MiB and 10000 files are left for /var/lib/shoal; at least 24 MiB and 500 files are needed; free some: `df -h /var/lib/shoal` and `df -i /var/lib/shoal` show which file system it is\n" +
		"  disk: 1 MiB and 10000 files are left for /etc/shoal; at least 24 MiB and 500 files are needed; free some: `df -h /etc/shoal` and `df -i /etc/shoal` show which file system it is\n" +
		"  agent.yaml: it did not work; mend the file, or remove it"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	h.root, h.fail = true, ""
	h.found = `[{"check":"containerd","grade":"fault","what":"there is no socket","fix":"install it"}]`
	_, err = h.machine().Init(t.Context(), machine.Init{Advertise: "10.9.9.9", Contexts: contexts.New(h.env.Files, configFolder)})
	for _, text := range []string{"10.9.9.9 is not an address of this machine", "containerd: there is no socket; install it"} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, wanted %q", err, text)
		}
	}
	if diff := cmp.Diff(before, h.files(t)); diff != "" || len(h.enabled)+len(h.active) > 0 {
		t.Errorf("it changed %s, and enabled %v", diff, h.enabled)
	}
}

func TestAPortInUseIsFoundBeforeAnythingIsMade(t *testing.T) {
	h := newHost(t)
	l, err := h.env.Net.Listen(t.Context(), "tcp", "10.0.0.1:2377")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = h.initialize(t.Context(), &gateway{})
	if err == nil || !strings.Contains(err.Error(), "port 2377: shoal-ca needs it on 10.0.0.1") {
		t.Errorf("got %v", err)
	}
}

func TestLeaveRemovesAllThatInitMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		if _, err := h.initialize(t.Context(), &gateway{}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.machine().Leave(t.Context(), machine.Leave{}); !errs.Is(err, errs.Precondition) || !strings.Contains(err.Error(), "participating as a manager") {
			t.Errorf("a manager leaves without force: %v", err)
		}
		if len(h.active) != 7 {
			t.Error("a refused leave stopped something")
		}
		h.calls = nil
		left, err := h.machine().Leave(t.Context(), machine.Leave{Force: true})
		if err != nil || !left.Manager || left.Machine != "m1" || len(left.Warnings) > 0 {
			t.Errorf("%+v, %v", left, err)
		}
		want := []string{
			"systemctl disable --now shoal-agent shoal-meshproxy shoal-gateway shoal-dispatcher shoal-scheduler shoal-ca shoal-store",
			"shoal-agent reset", "shoal-meshproxy reset",
		}
		if diff := cmp.Diff(want, h.calls); diff != "" {
			t.Error(diff)
		}
		var rest []string
		for _, f := range h.files(t) {
			if !strings.HasPrefix(f, configFolder) {
				rest = append(rest, f)
			}
		}
		if len(rest) > 0 {
			t.Errorf("%v stayed", rest)
		}
		if _, err := h.machine().Leave(t.Context(), machine.Leave{}); err == nil || err.Error() != "This node is not part of a cluster." {
			t.Errorf("leave twice: %v", err)
		}
	})
}

func TestLeaveKeepsItsIdentityWhenContainersCannotBeRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		for _, role := range []string{"agent", "meshproxy"} {
			for _, f := range []string{"/var/lib/shoal/" + role + "/identity/cert.pem", "/etc/shoal/" + role + ".yaml"} {
				if err := h.env.Files.Write(f, []byte("x"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		before := h.files(t)
		h.fail = "shoal-agent reset"
		if _, err := h.machine().Leave(t.Context(), machine.Leave{}); err == nil || !strings.Contains(err.Error(), "shoal-agent reset: it did not work; `shoal leave --force`") {
			t.Errorf("got %v", err)
		}
		if diff := cmp.Diff(before, h.files(t)); diff != "" {
			t.Error(diff)
		}
		left, err := h.machine().Leave(t.Context(), machine.Leave{Force: true})
		if err != nil || len(left.Warnings) != 1 || len(h.files(t)) != 0 {
			t.Errorf("%+v, %v, %v", left, err, h.files(t))
		}
	})
}

// What a process has left without its certificate, a store's log above all, may be all that is left of a cluster.
func TestInitNeverDeletesWhatItHasNotMade(t *testing.T) {
	for _, left := range []string{"/var/lib/shoal/store/raft/000001.log", "/var/lib/shoal/agent/journal.db"} {
		t.Run(left, func(t *testing.T) {
			h := newHost(t)
			h.fail = "shoal-ca bootstrap -config /etc/shoal/bootstrap.yaml" // as it does when it finds a store's log
			if err := h.env.Files.Write(left, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := h.initialize(t.Context(), &gateway{})
			if !errs.Is(err, errs.Precondition) || !strings.Contains(err.Error(), "remains of a cluster") {
				t.Errorf("got %v", err)
			}
			if got := h.files(t); !slices.Equal(got, []string{left}) || slices.ContainsFunc(h.calls, func(c string) bool { return strings.Contains(c, "bootstrap") }) {
				t.Errorf("files are %v after %v", got, h.calls)
			}
		})
	}
}

// Other machines must find the meshproxy where its person has put it.
func TestTheAgentTellsThePortOfTheMeshproxy(t *testing.T) {
	for config, want := range map[string]string{
		"log_level: info\n":                  "mesh_port: 2385\n",
		"listen:\n- 10.0.0.1:7000\n":         "mesh_port: 7000\n",
		"listen:\n- '[2001:db8::1]:30000'\n": "mesh_port: 30000\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t)
			if err := h.env.Files.Write("/etc/shoal/meshproxy.yaml", []byte(config), 0o640); err != nil {
				t.Fatal(err)
			}
			if _, err := h.initialize(t.Context(), &gateway{}); err != nil {
				t.Fatal(err)
			}
			if data, _ := h.env.Files.Read("/etc/shoal/agent.yaml"); !strings.Contains(string(data), want) {
				t.Errorf("%q: agent.yaml is %q, wanted %q in it", config, data, want)
			}
		})
	}
}
