// Package container says what a container is between those who decide about it (reconcile), those who run it (executor)
// and those who connect it (network).
//
// It owns the vocabulary and the naming of ids. It must never do anything: it has no I/O and no state. Values are not
// changed after they were passed on.
package container

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

// ID is the runtime's id of a task's container: task id "." attempt.
func ID(taskID string, attempt uint32) string {
	return taskID + "." + strconv.FormatUint(uint64(attempt), 10)
}

// TaskOf is the way back; ok is false for an id that is not ours.
func TaskOf(id string) (taskID string, attempt uint32, ok bool) {
	taskID, number, found := strings.Cut(id, ".")
	n, err := strconv.ParseUint(number, 10, 32)
	if !found || taskID == "" || err != nil {
		return "", 0, false
	}
	return taskID, uint32(n), true
}

// Group is the control group of a container: no other machine or agent has its id.
func Group(id string) string { return "/shoal/" + id }

// ShortID is what a container calls itself when its spec gives no hostname: the first 12 characters of its id, as Docker
// does.
func ShortID(id string) string { return id[:min(12, len(id))] }

// Node is what a machine is called, for placeholders.
type Node struct{ ID, Hostname, OS, Architecture string }

// Origin is where a container comes from. It is kept as labels on the container, so that an agent that lost its journal
// still knows whose it is.
type Origin struct {
	Cluster    string
	Task       string
	Attempt    uint32
	SpecHash   []byte
	Generation string // epoch/revision of the assignment
	Service    string
	Slot       uint64
}

// GenerationOf writes a version as a label.
func GenerationOf(v *typesv1.Version) string {
	return fmt.Sprintf("%d/%d", v.GetEpoch().GetNumber(), v.GetRevision())
}

// Spec is all that is needed to make a container.
type Spec struct {
	ID        string
	Origin    Origin
	Container *typesv1.ContainerSpec
	Resources *typesv1.ResourceRequirements // nil: none
	Hostname  string
	Sandbox   Sandbox
	Files     []Bind            // of secrets and configs
	Volumes   map[string]Volume // of its slot, by the mount's source
	IDs       IDs
	Log       Log
	Pull      Pull
}

// Volume is whose a volume is that belongs to a slot.
type Volume struct {
	Service     string
	Slot        uint64 // 0: the service has one task on each node
	Incarnation string // empty: there is only ever one of the name
}

// Pull is what is needed if the image is not here yet.
type Pull struct {
	Login Login
	// Tell hears how far it is. Nil: nobody does.
	Tell func(message string)
}

// Login is what the registry of an image wants to hear. Printed, it shows nothing of it. Empty: there is none.
type Login struct {
	Username, Password string
	Token              string // in the place of both
	// Awaited says that there is one that has not come yet.
	Awaited bool
}

// String keeps the login out of anything that prints it.
func (Login) String() string { return "(a login)" }

// GoString does the same for %#v.
func (Login) GoString() string { return "(a login)" }

// Log is how a container's output is kept.
type Log struct {
	Driver  string // empty: local
	Options map[string]string
	Service string // its service's name, for the journal
}

// Sandbox is what the network gives a container: paths on the machine.
type Sandbox struct {
	NetNS    string // network namespace; empty: the machine's own
	UserNS   string // user namespace, to which that belongs; empty: the machine's own
	Hosts    string // /etc/hosts
	Resolv   string // /etc/resolv.conf
	Hostname string // /etc/hostname
}

// File is a file of a secret or config. Printed, it does not show its data.
type File struct {
	Path     string // in the container
	Data     []byte
	UID, GID uint32
	Mode     uint32 // permissions alone
}

// String keeps the data out of anything that prints a File.
func (f File) String() string { return fmt.Sprintf("%s (%d bytes)", f.Path, len(f.Data)) }

// GoString does the same for %#v.
func (f File) GoString() string { return f.String() }

// Bind is a file of the machine that is mounted into a container, read-only.
type Bind struct{ From, To string }

// Wiring is what the network has to make for a container.
type Wiring struct {
	ID       string
	Hostname string
	Host     bool   // it shares the machine's own network
	IDs      IDs    // of the user namespace that is made for it
	Links    []Link // eth0, eth1, …; none with Host
	// Hosts are more lines of /etc/hosts, "ADDRESS NAME…"; the address host-gateway is the machine's.
	Hosts []string
	// Guest is another tool's namespace that is put on the networks. Nil: one is made.
	Guest *typesv1.AttachedNamespace
	// DNS changes how names are looked up. Its name servers are the meshproxy's to ask. Nil: nothing.
	DNS *typesv1.DNSConfig
}

// Link is one interface of a container.
type Link struct {
	// Network is the name, for words.
	Network string
	// VNI is the overlay's VXLAN network identifier, 0 for the machine network.
	VNI uint32
	// Encrypted says that it goes between machines encrypted or not at all.
	Encrypted bool
	// Addresses of the interface. On the machine network they are single (/32, /128).
	Addresses []netip.Prefix
	// Gateways of the default routes, at most one a family. They are on-link.
	Gateways []netip.Addr
}

// Stop says how a container is ended.
type Stop struct {
	// Signal that asks it. Empty: the image's, or SIGTERM.
	Signal string
	// Grace until SIGKILL. 0: at once.
	Grace time.Duration
	// Before is a command that runs in it before the signal, within the grace. Empty: none.
	Before []string
}

// Found is a container that the runtime has.
type Found struct {
	IDs      IDs
	ID       string
	Origin   Origin
	Presence task.Presence // never Absent
	Exit     *task.Exit    // when it ended
	PID      int64         // while it runs
}

// Command is what is run in a container beside its own program.
type Command struct {
	Args []string
	Env  []string
	Dir  string
	User string
	TTY  bool
	Size Size
	// Detach lets it run on by itself from its start: it has no input, and what it says goes nowhere.
	Detach bool
	// Stdin is its input; nil: it reads the end at once. Its end is the end of the input.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Sizes are those that the terminal takes on, Signals those that it gets, by number.
	Sizes   <-chan Size
	Signals <-chan uint32
}

// Size is a terminal's, in characters. The zero value is not known.
type Size struct{ Width, Height uint16 }
