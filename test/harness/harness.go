// Package harness is the laboratory: bare hosts made of namespaces on one Linux machine, a switch between them, and a
// registry, for the demo, the end-to-end and fault tests and the benchmarks. The command shoal-lab is its face for
// people and scripts; README.md tells how a host is made.
//
// It owns everything below a lab's folder and everything on the machine that is named after the lab's id (one
// interface, one cgroup, a few processes), and must never touch anything else. A Lab is safe for concurrent use, also by
// several processes: what changes the lab's make-up holds a lock in its folder.
package harness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalproject/shoal/test/harness/lan"
)

// DefaultDir is where a lab is when neither --dir nor SHOAL_LAB_DIR says else.
const DefaultDir = "/var/tmp/shoal-lab"

// Options say what kind of lab Up makes. The zero value is not useful: ask for at least one manager.
type Options struct {
	Dir        string       // the lab's folder; DefaultDir if empty
	Managers   int          // named m1, m2, …
	Workers    int          // named w1, w2, …
	NoInit     bool         // leave the hosts bare: no cluster
	Program    string       // the shoal-lab binary; the one in the project's bin folder if empty
	Containerd string       // folder of the containerd and its shim that hosts have; the machine's own if empty
	Log        *slog.Logger // progress; silent if nil
}

// maxHosts is what a /24 holds above the outer machine's and a few reserved addresses.
const maxHosts = 240

// parallel bounds how many hosts boot, or join, at once.
const parallel = 8

// Lab is a laboratory that is (or was, until Down) up.
type Lab struct {
	dir     string
	id      string
	program string
	log     *slog.Logger
}

// newLab names a lab by its folder and touches nothing.
func newLab(dir, program string, log *slog.Logger) (*Lab, error) {
	if dir == "" {
		dir = DefaultDir
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	// The id is drawn from the folder's true name, so that a lab is the same one by whatever link it is called.
	if parent, err := filepath.EvalSymlinks(filepath.Dir(dir)); err == nil {
		dir = filepath.Join(parent, filepath.Base(dir))
	}
	if program == "" {
		if program, err = findProgram(); err != nil {
			return nil, err
		}
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Lab{dir: dir, id: labID(dir), program: program, log: log}, nil
}

// Open returns the lab in a folder, to work on one that another process has brought up.
func Open(dir, program string, log *slog.Logger) (*Lab, error) {
	lab, err := newLab(dir, program, log)
	if err != nil {
		return nil, err
	}
	if _, err := lab.load(); err != nil {
		return nil, err
	}
	return lab, nil
}

// Up makes a lab and, unless told not to, a cluster on it. When hosts, switch or registry cannot be made, it takes back
// what it made; when `shoal init` or `shoal join` fails, the hosts stay up so that one can look, and the error holds the
// command's output.
func Up(ctx context.Context, opts Options) (*Lab, error) {
	if err := opts.validate(); err != nil {
		return nil, err
	}
	if err := checkMachine(); err != nil {
		return nil, err
	}
	lab, err := newLab(opts.Dir, opts.Program, opts.Log)
	if err != nil {
		return nil, err
	}
	if err := lab.claim(); err != nil {
		return nil, err
	}
	if err := lab.build(ctx, opts); err != nil {
		return nil, errors.Join(fmt.Errorf("lab %s: %w", lab.dir, err), lab.Down())
	}
	if opts.NoInit {
		return lab, nil
	}
	if err := lab.formCluster(ctx); err != nil {
		return lab, fmt.Errorf("%w\nThe hosts stay up; `shoal-lab down --dir %s` removes them", err, lab.dir)
	}
	return lab, nil
}

func (o Options) validate() error {
	var faults []error
	if o.Managers < 0 || o.Workers < 0 {
		faults = append(faults, errors.New("the number of managers and of workers must not be negative"))
	}
	if o.Managers == 0 && !o.NoInit {
		faults = append(faults, errors.New("a cluster needs at least one manager"))
	}
	if n := o.Managers + o.Workers; n < 1 || n > maxHosts {
		faults = append(faults, fmt.Errorf("a lab has 1 to %d hosts, not %d", maxHosts, n))
	}
	return errors.Join(faults...)
}

// build makes hosts, switch and registry.
func (l *Lab) build(ctx context.Context, opts Options) error {
	start := time.Now()
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	// Step 1: the range, the state and the switch, under the machine-wide lock: another lab's choice of a range must
	// see this one's route.
	state, err := l.makeSwitch(opts)
	if err != nil {
		return err
	}
	if err := l.makeShims(); err != nil {
		return err
	}
	// Step 2: the registry, whose certificate the hosts' folders hold. It loads its images while the hosts boot.
	if err := l.makeCertificates(state); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	group.Go(func() error { return l.startRegistry(ctx, state) })
	// Step 3: the hosts.
	for _, host := range state.Hosts {
		if err := l.furnish(state, host); err != nil {
			return errors.Join(err, group.Wait())
		}
		group.Go(func() error {
			if err := l.boot(ctx, state, host); err != nil {
				return err
			}
			return l.requireContainerd(ctx, host)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	l.log.Info("hosts are up", "hosts", len(state.Hosts), "took", time.Since(start).Round(time.Millisecond))
	return nil
}

func (l *Lab) makeSwitch(opts Options) (State, error) {
	release, err := lockMachine()
	if err != nil {
		return State{}, err
	}
	defer release()
	addresses, err := lan.Pick(l.id)
	if err != nil {
		return State{}, err
	}
	state := newState(l, opts, addresses)
	if err := l.save(state); err != nil {
		return State{}, err
	}
	if err := os.MkdirAll(l.path("run"), 0o700); err != nil {
		return State{}, err
	}
	return state, l.lan().Create(addresses.Addresses(1))
}

// Dir is the lab's folder.
func (l *Lab) Dir() string { return l.dir }

// Hosts names the lab's hosts, managers first.
func (l *Lab) Hosts() ([]string, error) {
	state, err := l.load()
	if err != nil {
		return nil, err
	}
	names := make([]string, len(state.Hosts))
	for i, host := range state.Hosts {
		names[i] = host.Name
	}
	return names, nil
}

// Address is a host's IPv4 address.
func (l *Lab) Address(host string) (string, error) {
	_, found, err := l.host(host)
	if err != nil {
		return "", err
	}
	return found.IPv4.String(), nil
}

// Registry is the host:port of the lab's registry, the same from every host and from the outer machine.
func (l *Lab) Registry() (string, error) {
	state, err := l.load()
	return state.Registry, err
}

// host loads the lab and picks one of its hosts.
func (l *Lab) host(name string) (State, Host, error) {
	state, err := l.load()
	if err != nil {
		return State{}, Host{}, err
	}
	i := slices.IndexFunc(state.Hosts, func(h Host) bool { return h.Name == name })
	if i < 0 {
		return State{}, Host{}, fmt.Errorf("no host %q in the lab %s: it has %s", name, l.dir, state.names())
	}
	return state, state.Hosts[i], nil
}

func (l *Lab) path(parts ...string) string {
	return filepath.Join(append([]string{l.dir}, parts...)...)
}

func (l *Lab) lan() lan.Switch {
	return lan.Switch{Namespace: l.path("switch.ns"), Interface: l.id}
}

// openLog opens a log file of one of the lab's own processes.
func (l *Lab) openLog(name string) (*os.File, error) {
	if err := os.MkdirAll(l.path("log"), 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(l.path("log", name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}
