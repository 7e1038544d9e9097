package doctor_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/finding"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"

	"github.com/shoalproject/shoal/cli/internal/doctor"
	"github.com/shoalproject/shoal/cli/internal/layout"
)

const (
	agent      = authzv1.Role_ROLE_AGENT
	meshproxy  = authzv1.Role_ROLE_MESHPROXY
	dispatcher = authzv1.Role_ROLE_DISPATCHER
	ca         = authzv1.Role_ROLE_CA
)

// patient is a machine in memory that is well until something is spoilt: an agent, a meshproxy and a dispatcher on it, a CA
// and another dispatcher elsewhere.
type patient struct {
	env    run.Env
	doctor *doctor.Doctor
	roles  []authzv1.Role

	root      bool
	missing   string // a program that is not there
	fail      map[string]error
	agent     string // what shoal-agent doctor prints
	space     doctor.Space
	open      uint64
	users     map[string]int
	owners    map[string]int
	unknown   string // a name that is not found
	ahead     time.Duration
	elsewhere net.Listener
	version   string // what programs print; empty: this build's
}

func newPatient(t *testing.T) (p *patient, stop func()) {
	t.Helper()
	env := testx.Env(t)
	p = &patient{
		env: env, roles: []authzv1.Role{dispatcher, meshproxy, agent}, root: true, fail: map[string]error{}, agent: "[]",
		space: doctor.Space{Bytes: 10 << 30, Files: 1 << 20}, open: 1 << 20, users: map[string]int{}, owners: map[string]int{},
	}
	p.doctor = &doctor.Doctor{Env: env, Programs: p, System: p, Accounts: p}
	authority := identitytest.New(t, env, "c1")
	known := &cav1.Directory{Entries: []*cav1.DirectoryEntry{
		{Role: ca, MachineId: "m0", Addresses: []string{"10.0.0.9:2377"}},
		{Role: authzv1.Role_ROLE_STORE, MachineId: "m0", Addresses: []string{"10.0.0.9:2377"}},
		{Role: dispatcher, MachineId: "m1", Addresses: []string{"10.0.0.1:2383"}},
		{Role: dispatcher, MachineId: "m0", Addresses: []string{"10.0.0.9:2383"}},
	}}
	l := layout.Layout{}
	var faults []error
	for _, r := range p.roles {
		authority.Write(t, env, l.Identity(r), identitytest.Leaf{URIs: []string{authority.ID(r, "m1").URI()}})
		faults = append(faults, env.Files.Write(l.Config(r), []byte("advertise: [10.0.0.1]\n"), 0o640),
			directory.Write(env.Files, path.Join(l.Folder(r), "directory.json"), known))
	}
	var open []net.Listener
	for _, at := range []string{"10.0.0.1:2383", "10.0.0.1:2385", "10.0.0.9:2383"} {
		listener, err := env.Net.Listen(t.Context(), "tcp", at)
		faults = append(faults, err)
		open = append(open, listener)
		go accept(listener)
	}
	p.elsewhere = open[2]
	if err := errors.Join(faults...); err != nil {
		t.Fatal(err)
	}
	s := rpc.NewServer(env, authority.Keeper(t, env, authority.ID(ca, "m0")))
	cav1.RegisterCertificateServiceServer(s.GRPC(), clock{patient: p})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve([]string{"10.0.0.9:2377"})(ctx) }()
	synctest.Wait()
	return p, func() {
		cancel()
		for _, l := range open {
			_ = l.Close()
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		_ = conn.Close()
	}
}

// clock is a CA whose time is behind the patient's.
type clock struct {
	cav1.UnimplementedCertificateServiceServer
	patient *patient
}

func (c clock) GetRoot(context.Context, *cav1.GetRootRequest) (*cav1.GetRootResponse, error) {
	return &cav1.GetRootResponse{Now: timestamppb.New(c.patient.env.Now().Add(-c.patient.ahead))}, nil
}

func (p *patient) Find(name string) (string, error) {
	if name == p.missing {
		return "", errors.New("not found")
	}
	return "/bin/" + name, nil
}

func (p *patient) Run(_ context.Context, name string, args ...string) (string, error) {
	line := path.Base(name) + " " + strings.Join(args, " ")
	for part, err := range p.fail {
		if strings.Contains(line, part) {
			return "raft: waits: no leader\nlistener: well\n", err
		}
	}
	switch {
	case strings.Contains(line, "-version"):
		return path.Base(name) + " " + cmp.Or(p.version, run.FullVersion()), nil
	case strings.HasPrefix(line, "shoal-agent doctor"):
		return p.agent, nil
	case strings.Contains(line, " doctor "):
		return `[{"check":"vxlan","grade":"ok","what":"the kernel has it"}]`, nil
	}
	return "", nil
}

func (p *patient) Privileged() bool { return p.root }

func (*patient) Addresses() ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
}
func (p *patient) Space(string) (doctor.Space, error) { return p.space, nil }
func (p *patient) OpenFiles() (uint64, error)         { return p.open, nil }

func (p *patient) Lookup(_ context.Context, host string) ([]string, error) {
	if host == p.unknown {
		return nil, errors.New("no such host")
	}
	return []string{"10.0.0.1"}, nil
}

func (p *patient) Account(user string) (uid, gid int, ok bool) {
	uid, ok = p.users[user]
	return uid, uid, ok
}

func (p *patient) Owner(name string) (uid, gid int, err error) {
	return p.owners[name], p.owners[name], nil
}

func (p *patient) examine(ctx context.Context) []finding.Finding {
	return p.doctor.Examine(ctx, doctor.Patient{Roles: p.roles, Advertise: []string{"10.0.0.1"}})
}

// TestEachAilmentIsToldWithItsCure spoils one thing at a time: that, and nothing else, is told.
func TestEachAilmentIsToldWithItsCure(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(p *patient) error
		want  string // grade and check; empty: all is well
		fix   string
	}{
		"well":       {func(*patient) error { return nil }, "", ""},
		"not root":   {func(p *patient) error { p.root = false; return nil }, "fault root", "sudo"},
		"no systemd": {func(p *patient) error { p.missing = "systemctl"; return nil }, "fault systemd", "--start none"},
		"containerd is ill": {func(p *patient) error {
			p.agent = `[{"check":"containerd","grade":"fault","what":"x","fix":"y"}]`
			return nil
		}, "fault containerd", "y"},
		"an agent of old": {func(p *patient) error { p.agent = "usage"; return nil }, "fault shoal-agent", "one version"},
		"another build":   {func(p *patient) error { p.version = "v0.0.1 (commit 1a2b3c, of unknown time) go1.26"; return nil }, "warning versions", "one version"},
		"key that can be run": {func(p *patient) error {
			return p.env.Files.Write("/var/lib/shoal/agent/issuing/key.pem", nil, 0o700)
		}, "fault key", "chmod 600"},
		"full disk":              {func(p *patient) error { p.space.Bytes = 1 << 20; return nil }, "fault disk, fault disk", "df -h"},
		"no inodes":              {func(p *patient) error { p.space.Files = 3; return nil }, "fault disk, fault disk", "df -i"},
		"disk runs full":         {func(p *patient) error { p.space.Bytes = 500 << 20; return nil }, "warning disk", "free some"},
		"few files":              {func(p *patient) error { p.open = 1024; return nil }, "warning open files", "LimitNOFILE"},
		"own name is not found":  {func(p *patient) error { p.unknown = p.env.Host; return nil }, "warning names", "/etc/hosts"},
		"clock":                  {func(p *patient) error { p.ahead = time.Minute; return nil }, "warning clock", "set-ntp"},
		"clock far off":          {func(p *patient) error { p.ahead = -time.Hour; return nil }, "fault clock", "set-ntp"},
		"one dispatcher is away": {func(p *patient) error { return p.elsewhere.Close() }, "warning reach dispatcher", "firewall"},
		"config": {func(p *patient) error {
			p.fail["-check -config /etc/shoal/agent.yaml"] = errors.New("config file /etc/shoal/agent.yaml: nonsense (exit code 2)")
			return nil
		}, "fault agent.yaml", "mend the file"},
		"unit is dead": {func(p *patient) error {
			p.fail["is-active --quiet shoal-agent"] = errors.New("inactive")
			return nil
		}, "fault shoal-agent", "systemctl start shoal-agent"},
		"unit is not enabled": {func(p *patient) error {
			p.fail["is-enabled --quiet shoal-agent"] = errors.New("disabled")
			return nil
		}, "warning shoal-agent", "systemctl enable shoal-agent"},
		"unit waits": {func(p *patient) error {
			p.fail["shoal-agent health"] = errors.New("not well")
			return nil
		}, "warning shoal-agent", "journalctl"},
		"key that all can read": {func(p *patient) error {
			return p.env.Files.Write("/var/lib/shoal/agent/issuing/key.pem", nil, 0o640)
		}, "fault key", "chmod 600 /var/lib/shoal/agent/issuing/key.pem"},
		"folder of another user": {func(p *patient) error {
			p.users["shoal-dispatcher"] = 70
			p.owners["/etc/shoal/dispatcher.yaml"] = 70
			return nil
		}, "fault owner", "chown -R 70:70 /var/lib/shoal/dispatcher"},
		"name of a member": {func(p *patient) error {
			p.unknown = "manager.example"
			return directory.Write(p.env.Files, "/var/lib/shoal/agent/directory.json", &cav1.Directory{Entries: []*cav1.DirectoryEntry{
				{Role: ca, MachineId: "m0", Addresses: []string{"10.0.0.9:2377"}}, {Role: ca, MachineId: "m2", Addresses: []string{"manager.example:2377"}},
			}})
		}, "fault name manager.example, warning reach ca", "/etc/hosts"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, stop := newPatient(t)
				defer stop()
				if err := c.spoil(p); err != nil {
					t.Fatal(err)
				}
				var told, fixes []string
				for _, f := range p.examine(t.Context()) {
					if f.Grade != finding.OK {
						told = append(told, fmt.Sprintf("%s %s", f.Grade, f.Check))
						fixes = append(fixes, f.Fix)
					}
				}
				if got := strings.Join(told, ", "); got != c.want || !strings.Contains(strings.Join(fixes, "\n"), c.fix) {
					t.Errorf("told %q with %q, wanted %q with %q", got, fixes, c.want, c.fix)
				}
			})
		})
	}
}

// A port is ours when our process runs, and must be free when it does not.
func TestPorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, stop := newPatient(t)
		defer stop()
		p.fail["is-active --quiet shoal-dispatcher"] = errors.New("inactive")
		for _, f := range p.examine(t.Context()) {
			if f.Check == "port 2383" && (f.Grade != finding.Fault || !strings.Contains(f.What, "needs it")) || f.Check == "port 2385" && f.Grade != finding.OK {
				t.Errorf("%+v", f)
			}
		}
		delete(p.fail, "is-active --quiet shoal-dispatcher")
		// A person has moved the dispatcher, and there nobody answers.
		if err := p.env.Files.Write("/etc/shoal/dispatcher.yaml", []byte("listen: ['0.0.0.0:7000']\n"), 0o640); err != nil {
			t.Fatal(err)
		}
		if err := finding.Err("doctor", p.examine(t.Context())); err == nil || !strings.Contains(err.Error(), "port 7000: nothing answers on 127.0.0.1:7000") {
			t.Errorf("got %v", err)
		}
	})
}

// The preflight has a person's config checked as it is going to be, and leaves no trace of that.
func TestPreflightChecksWhatIsGoingToBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, stop := newPatient(t)
		defer stop()
		p.fail["-check -config /etc/shoal/ca.yaml.check"] = errors.New("config file /etc/shoal/ca.yaml.check: no (exit code 2)")
		found := p.doctor.Preflight(t.Context(), doctor.Patient{
			Roles: []authzv1.Role{ca}, Advertise: []string{"10.0.0.1"}, Configs: map[authzv1.Role][]byte{ca: []byte("x: 1\n")},
		})
		if err := finding.Err("init", found); err == nil || err.Error() != "init: ca.yaml: config file /etc/shoal/ca.yaml: no; mend the file, or remove it" {
			t.Errorf("got %v", err)
		}
		if _, err := p.env.Files.Stat("/etc/shoal/ca.yaml.check"); err == nil {
			t.Error("the trial stayed")
		}
	})
}
