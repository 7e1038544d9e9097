// Package agenttest has a machine in memory, for the simulation and for hollow nodes: containers that are hollow, a
// container network that is none, and a journal that loses what it has not written.
//
// It owns what of a machine outlives an agent process. It must never know the agent's own rules: it does what an executor,
// a network and a journal promise, and fails as they do. A Host is safe for concurrent use. All its waiting is by package
// time, so it is virtual in a synctest bubble.
package agenttest

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/run"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/journal"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

// Host is one machine. It goes on when its agent ends; each agent process gets handles of its own from Env.
type Host struct {
	rand *run.Rand

	mu          sync.Mutex // guards all below; never held while waiting
	description *typesv1.NodeDescription
	life        int // raised by each Crash and PowerOff: handles of an earlier one are dead
	dead        chan struct{}
	containers  map[string]*hollow
	wired       map[string]container.Wiring   // network namespaces
	volumes     map[string]*logsv1.NodeVolume // named ones
	files       map[string][]container.File   // of secrets and configs, in memory
	logs        map[string]*output            // by container id
	images      map[string]Behaviour
	all         Behaviour
	away        bool            // the runtime does not answer
	sick        map[string]bool // images whose containers answer no look
	ran         []string        // commands that were run in containers
	journal     journal.State
	starts      int
	uses        map[string]Use // by image
	made        func(task string)
}

// Behaviour is how the containers of an image behave. The zero value starts at once, runs for ever and ends at once, with
// exit code 0, when it is asked to.
type Behaviour struct {
	// PullError says why the image can't be had, in a registry's words.
	PullError string
	// Login is the user:password that its registry wants; empty: none.
	Login string
	// Progress is told while it is pulled.
	Progress string
	// PrepareDelay is for pull and unpack.
	PrepareDelay time.Duration
	// StartError says why the process can't be started.
	StartError string
	// StartDelay is from the start to the running process.
	StartDelay time.Duration
	// RunFor is the time after which the process ends by itself. 0: never.
	RunFor time.Duration
	// ExitCode is that of such an end.
	ExitCode int32
	// Health is the health check that the image brings; nil: none.
	Health *typesv1.Probe
	// StopDelay is from the stop signal to the end. Longer than the grace: it is killed.
	StopDelay time.Duration
}

// Container is what a Host has of a container.
type Container struct {
	ID       string
	TaskID   string
	Image    string
	Hostname string
	Running  bool
	ExitCode int32
	PID      int64
	// FirstID is the first of its own user ids; 0: it has the machine's.
	FirstID uint32
	// Spec is what the task asked for, whole.
	Spec *typesv1.ContainerSpec
}

type hollow struct {
	Container
	spec     Behaviour
	presence task.Presence
	origin   origin
	files    map[string][]byte // archives that were put, by directory
	commands map[int]int       // of people that run, by the life of the agent that began them
	ended    chan struct{}     // closed when the process ends; made at the start
	used     time.Duration     // of processors
	read     time.Time         // until when that was counted
}

// NewHost is a machine with 4 processors, 8 GiB of memory and 100 GiB of disk. Its choices come from rand.
func NewHost(name string, rand *run.Rand) *Host {
	return &Host{
		rand: rand, dead: make(chan struct{}), containers: map[string]*hollow{}, wired: map[string]container.Wiring{}, files: map[string][]container.File{},
		volumes: map[string]*logsv1.NodeVolume{},
		logs:    map[string]*output{}, images: map[string]Behaviour{}, journal: journal.State{Tasks: map[string]journal.Record{}},
		description: &typesv1.NodeDescription{
			Hostname: name, Platform: &typesv1.Platform{Os: "linux", Architecture: "amd64"},
			NanoCpus: 4e9, MemoryBytes: 8 << 30, DiskBytes: 100 << 30, Kernel: "hollow", RuntimeVersion: "hollow", UserNamespaces: true,
		},
	}
}

// Env is what an agent process on this host takes from outside. A process that was stopped in good order and one that
// follows it may use two of them; after Crash or PowerOff those given before are dead.
func (h *Host) Env(env run.Env) agent.Env {
	h.mu.Lock()
	defer h.mu.Unlock()
	own := handle{host: h, life: h.life, dead: h.dead}
	return agent.Env{Env: env, Executor: &Executor{own}, Network: &Network{own}, Vault: &Vault{own}, Journal: &Journal{own}, Machine: machine{h}, Usage: &Usage{own}}
}

// SetResources changes what the machine says of itself, for the next session.
func (h *Host) SetResources(nanoCPUs, memoryBytes int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.description.NanoCpus, h.description.MemoryBytes = nanoCPUs, memoryBytes
}

// Behave says how containers of an image behave that are made from now on; image "" stands for all that are not named.
func (h *Host) Behave(image string, b Behaviour) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if image == "" {
		h.all = b
		return
	}
	h.images[image] = b
}

// OnMade has f called with the task of each container when it is made. F is quick and knows nothing of this host.
func (h *Host) OnMade(f func(task string)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.made = f
}

// SetSick says whether looks at the containers of an image fail: by the command `look`, by HTTP or by TCP.
func (h *Host) SetSick(image string, sick bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sick == nil {
		h.sick = map[string]bool{}
	}
	h.sick[image] = sick
}

// Commands are those that were run in containers, `look` apart, in their order.
func (h *Host) Commands() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ran)
}

// Crash ends the agent process as SIGKILL does: its handles are dead at this moment, a write to the journal that has not
// returned may be lost. Containers run on.
func (h *Host) Crash() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.crash()
}

func (h *Host) crash() {
	h.life++
	close(h.dead)
	h.dead = make(chan struct{})
}

// PowerOff ends everything on the machine. The disk is kept: containers that were made are there afterwards, their
// processes and their namespaces are not.
func (h *Host) PowerOff() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.crash()
	h.wired, h.files = map[string]container.Wiring{}, map[string][]container.File{}
	for _, c := range h.containers {
		if c.presence == task.Running {
			close(c.ended)
		}
		c.presence, c.Running = task.Made, false
	}
}

// Kill ends a container's process behind the agent's back. It says whether there was one.
func (h *Host) Kill(id string, code int32) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.containers[id]
	return h.end(c, code)
}

// Delete takes a container away behind the agent's back.
func (h *Host) Delete(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.end(h.containers[id], 137)
	delete(h.containers, id)
}

// SetRuntime says whether the container runtime answers. Containers run on either way.
func (h *Host) SetRuntime(up bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.away = !up
}

// LoseJournal forgets all that was written, as a broken disk would.
func (h *Host) LoseJournal() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.journal = journal.State{Tasks: map[string]journal.Record{}}
}

// Journal is what is written in it.
func (h *Host) Journal() journal.State {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.journal
}

// Containers are all that are there, by id.
func (h *Host) Containers() []Container {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]Container, 0, len(h.containers))
	for _, c := range h.containers {
		list = append(list, c.Container)
	}
	slices.SortFunc(list, func(a, b Container) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Namespaces are the containers that have one, by id.
func (h *Host) Namespaces() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.wired))
}

// At is the running container that has an address on one of its networks.
func (h *Host) At(address netip.Addr) (Container, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, w := range h.wired {
		c := h.containers[id]
		if c == nil || !c.Running {
			continue
		}
		for _, l := range w.Links {
			if slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Addr() == address }) {
				return c.Container, true
			}
		}
	}
	return Container{}, false
}

// Files are what the files of secrets and configs of a container have, by their path in it.
func (h *Host) Files(id string) map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]string{}
	for _, f := range h.files[id] {
		out[f.Path] = string(f.Data)
	}
	return out
}

// Starts counts the processes that were ever started here.
func (h *Host) Starts() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.starts
}

// end needs the lock.
func (h *Host) end(c *hollow, code int32) bool {
	if c == nil || c.presence != task.Running {
		return false
	}
	c.presence, c.Running, c.ExitCode = task.Ended, false, code
	close(c.ended)
	return true
}

// machine says what the host is.
type machine struct{ host *Host }

// Describe is a copy.
func (m machine) Describe() *typesv1.NodeDescription {
	m.host.mu.Lock()
	defer m.host.mu.Unlock()
	return proto.CloneOf(m.host.description)
}
