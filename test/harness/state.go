package harness

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/test/harness/lan"
)

// State is what a lab's state.json holds: its make-up, not what is alive. Who runs what is in run/*.json, written by
// the processes concerned.
type State struct {
	ID       string     `json:"id"`
	Dir      string     `json:"dir"`
	Range    lan.Range  `json:"range"`
	Registry string     `json:"registry"` // host:port
	Hosts    []Host     `json:"hosts"`
	Faults   lan.Faults `json:"faults"`

	Containerd string `json:"containerd,omitempty"` // folder of another than the machine's
}

// Host is one machine of the lab.
type Host struct {
	Name      string     `json:"name"`
	Role      string     `json:"role"`   // manager or worker: what it is meant for, and joins as
	Number    int        `json:"number"` // its place in the address range
	IPv4      netip.Addr `json:"ipv4"`
	Unplugged bool       `json:"unplugged,omitempty"`
	Disk      string     `json:"disk,omitempty"` // file of the small disk
}

// Roles of hosts.
const (
	Manager = "manager"
	Worker  = "worker"
)

const (
	firstHostNumber = 11
	registryPort    = 5000
)

// labID is at once the outer interface's name and part of every other name of the lab on the machine.
func labID(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return "slab" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:8])
}

func newState(l *Lab, opts Options, addresses lan.Range) State {
	state := State{ID: l.id, Dir: l.dir, Range: addresses, Containerd: opts.Containerd}
	state.Registry = fmt.Sprintf("%s:%d", addresses.Addresses(1)[0].Addr(), registryPort)
	add := func(role, prefix string, count int) {
		for i := range count {
			number := firstHostNumber + len(state.Hosts)
			state.Hosts = append(state.Hosts, Host{
				Name: fmt.Sprintf("%s%d", prefix, i+1), Role: role,
				Number: number, IPv4: addresses.Addresses(number)[0].Addr(),
			})
		}
	}
	add(Manager, "m", opts.Managers)
	add(Worker, "w", opts.Workers)
	return state
}

func (s State) names() string {
	names := make([]string, len(s.Hosts))
	for i, host := range s.Hosts {
		names[i] = host.Name
	}
	return strings.Join(names, ", ")
}

func (l *Lab) load() (State, error) {
	text, err := os.ReadFile(l.path("state.json"))
	if errors.Is(err, os.ErrNotExist) {
		return State{}, fmt.Errorf("no lab in %s: `shoal-lab up` makes one (or say --dir, or set SHOAL_LAB_DIR)", l.dir)
	}
	if err != nil {
		return State{}, err
	}
	var state State
	if err := json.Unmarshal(text, &state); err != nil {
		return State{}, fmt.Errorf("read %s: %w", l.path("state.json"), err)
	}
	return state, nil
}

func (l *Lab) save(state State) error {
	text, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return err
	}
	return writeAtomic(l.path("state.json"), append(text, '\n'))
}

// writeAtomic replaces a file as a whole, so that a reader in another process never sees half of it.
func writeAtomic(path string, text []byte) error {
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// claim makes the lab's folder, which must not hold anything yet.
func (l *Lab) claim() error {
	if _, err := os.Stat(l.path("state.json")); err == nil {
		return fmt.Errorf("there is a lab in %s already: `shoal-lab down --dir %s` removes it", l.dir, l.dir)
	}
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return fmt.Errorf("make the lab's folder: %w", err)
	}
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return fmt.Errorf("make the lab's folder: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("the folder %s is not empty and not a lab: name another one", l.dir)
	}
	// The mark comes first: from here on Down knows the folder for a lab's, whatever happens next.
	return l.save(State{ID: l.id, Dir: l.dir})
}

// lock serialises what changes the lab's make-up, across processes.
func (l *Lab) lock() (unlock func(), err error) {
	return flock(l.path("state.json"), l.path("lock"), os.O_CREATE)
}

// lockMachine serialises the choice of an address range among all labs of the machine. A folder that always exists is
// locked, so that the lock leaves no file behind.
func lockMachine() (unlock func(), err error) {
	return flock("", "/var/tmp", os.O_RDONLY)
}

func flock(mustExist, path string, flags int) (unlock func(), err error) {
	if mustExist != "" {
		if _, err := os.Stat(mustExist); err != nil {
			return nil, fmt.Errorf("no lab in %s: `shoal-lab up` makes one", filepath.Dir(mustExist))
		}
	}
	file, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	for {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { file.Close() }, nil
}

// change applies one change to the state under the lab's lock.
func (l *Lab) change(change func(*State) error) error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	state, err := l.load()
	if err != nil {
		return err
	}
	if err := change(&state); err != nil {
		return err
	}
	return l.save(state)
}

// ID is the lab's name on the machine: of its interface, and within the name of its cgroup.
func (l *Lab) ID() string { return l.id }
