// Package space keeps the tables in the network namespaces of this machine's containers: the virtual addresses of their
// networks.
//
// It owns the nftables table "shoal-vip" in each of them and nothing else there, and the sockets by which it reaches them,
// which the agent has opened (package netpass). Which addresses there are is vip's to say. A container whose tables somebody
// has changed gets them anew at the next look. Nothing is removed when the process stops. Everything is safe for concurrent use.
package space

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/run"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/vip"
)

// handOver is how long after our start the agent may take to hand over what runs here. Until then tables in containers may
// be old, and no version is reported that is not in force in them.
const handOver = 2 * time.Second

// Spaces are the containers' of one machine.
type Spaces struct {
	env        run.Env
	started    time.Time
	neighbours uint32 // of one container

	mu        sync.Mutex // guards all below
	spaces    map[string]*space
	model     *mesh.Model
	tables    map[string]made          // by network
	made      uint64                   // counts them
	callers   map[string]*mesh.Callers // of this machine's services that name some
	ended     map[netip.Addr]time.Time // addresses of tasks that have ended, and when
	withdrawn map[string]bool          // tasks that are dead before the cluster says so
}

// made is a network's table and what it was made from.
type made struct {
	from    *mesh.Directory
	table   vip.Table
	counted map[netip.Addr]string
	number  uint64 // no two tables have the same
}

// space is one container's.
type space struct {
	id     string
	socket *os.File
	wire   *wire
	// neighbours bounds how many it begins something with.
	neighbours uint32
	known      bool // its task was in a model
	ready      func()

	have       vip.Table             // what is in force; nil: not known
	numbers    []uint64              // of the networks' tables that it is made of
	counted    map[netip.Addr]string // virtual addresses that count, and for which service
	callers    *mesh.Callers         // who may call; nil: anybody
	turns      turns                 // those that have a chain
	left       map[netip.Addr]bool   // tasks that have left since UDP clients were last taken from them
	renewed    bool                  // the tables were made anew since
	bare       bool                  // it needs no tables, and has none
	generation uint32                // of the packet filter after our last change; 0: not known
}

// New has none. Each may begin something with so many neighbours at a time.
func New(env run.Env, neighbours uint32) *Spaces {
	return &Spaces{
		env: env, started: time.Now(), neighbours: neighbours, spaces: map[string]*space{}, tables: map[string]made{}, callers: map[string]*mesh.Callers{},
		ended: map[netip.Addr]time.Time{}, withdrawn: map[string]bool{},
	}
}

// Take adds a container by a netfilter socket in its namespace, which is ours from now on. Ready is called when its tables
// are in force, which waits until its task is known; it must not block.
func (s *Spaces) Take(id string, socket *os.File, ready func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(id)
	// The descriptor stays blocking to the runtime, which must not wait for it: the kernel answers at once.
	x := &space{id: id, socket: socket, wire: newWire(int(socket.Fd())), neighbours: s.neighbours, ready: ready}
	s.spaces[id] = x
	if err := s.settle(x, nil); err != nil {
		s.env.Log.Warn("virtual addresses of a container not in force, will retry", "container", id, "error", err)
	}
}

// Drop lets go of a container that has ended, whose namespace can then end too. If it is another tool's it does not: our table is taken
// away here, since a change of it may have come after the agent did so.
func (s *Spaces) Drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.spaces[id]; x != nil && x.have != nil && !x.bare {
		x.clear()
	}
	s.drop(id)
}

// drop needs the lock.
func (s *Spaces) drop(id string) {
	if x := s.spaces[id]; x != nil {
		_ = x.socket.Close() // nothing is buffered in it
		delete(s.spaces, id)
	}
}

// Withdraw takes a dead task out of all tables before the cluster knows.
func (s *Spaces) Withdraw(task string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.model == nil {
		return
	}
	s.withdrawn[task] = true
	clear(s.tables)
	if err := s.each(nil); err != nil {
		s.env.Log.Warn("dead task not out of all tables, will retry", "task", task, "error", err)
	}
	if err := s.forget(false); err != nil {
		s.env.Log.Warn("UDP clients of a dead task not taken from it, will retry", "task", task, "error", err)
	}
}

// Apply puts a model in force in each container. The same model again means a look at what is really there.
func (s *Spaces) Apply(_ context.Context, m *mesh.Model) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	again := m == s.model
	gone, back := vip.Departed(s.model, m)
	s.model = m
	reused := s.remember(gone, back)
	s.forgetWithdrawn()
	for id, x := range s.spaces {
		if m.LocalTask(taskOf(id)) != nil {
			x.known = true
		} else if x.known { // its task has ended, whether or not the agent has said so
			s.drop(id)
		}
	}
	for _, x := range s.spaces {
		if again || reused {
			x.suspect(reused)
		}
	}
	s.forgetCallers()
	err := s.each(gone)
	s.expire()
	return errors.Join(err, s.missing())
}

// each settles all containers.
func (s *Spaces) each(gone []netip.Addr) error {
	var faults []error
	for _, x := range s.spaces {
		faults = append(faults, s.settle(x, gone))
	}
	return errors.Join(faults...)
}

// settle brings one container's tables to what they should be, and says so once.
func (s *Spaces) settle(x *space, gone []netip.Addr) error {
	task := s.model.LocalTask(taskOf(x.id))
	if task == nil {
		return nil // it is told later
	}
	x.known = true
	want := wanted{counted: map[netip.Addr]string{}, callers: s.callersOf(task), networks: len(task.GetNetworkIds()) > 0}
	var tables []vip.Table
	for _, network := range task.GetNetworkIds() {
		of := s.table(network)
		tables = append(tables, of.table)
		want.numbers = append(want.numbers, of.number)
		maps.Copy(want.counted, of.counted)
	}
	want.table = vip.Union(tables...)
	if err := x.bring(want, gone, s.recent()); err != nil {
		x.have = nil
		return fmt.Errorf("virtual addresses of container %s: %w", x.id, err)
	}
	if x.ready != nil {
		x.ready()
		x.ready = nil
	}
	return nil
}

// callersOf are made once for all tasks of a service.
func (s *Spaces) callersOf(task *dispatcherv1.LocalTask) *mesh.Callers {
	c := s.model.Callers(task, s.callers[task.GetServiceId()])
	if c == nil {
		delete(s.callers, task.GetServiceId())
		return nil
	}
	s.callers[task.GetServiceId()] = c
	return c
}

// forgetCallers lets go of those of services that have no task here any more, and of all that they are made of.
func (s *Spaces) forgetCallers() {
	here := map[string]bool{}
	for task := range s.model.LocalTasks() {
		here[task.GetServiceId()] = true
	}
	maps.DeleteFunc(s.callers, func(service string, _ *mesh.Callers) bool { return !here[service] })
}

func (s *Spaces) table(network string) made {
	d := s.model.Directory(network)
	if t, ok := s.tables[network]; ok && t.from == d {
		return t
	}
	out := func(task string) bool { return s.withdrawn[task] }
	old, ok := s.tables[network]
	if !ok || old.from == nil {
		old = made{from: &mesh.Directory{}, table: vip.Table{}}
	}
	t := vip.Next(old.table, old.from, d, out)
	s.made++
	s.tables[network] = made{d, t, vip.Counted(d, t), s.made}
	return s.tables[network]
}

// wanted is what should be in force in a container.
type wanted struct {
	table   vip.Table
	counted map[netip.Addr]string
	callers *mesh.Callers
	// networks says that it is on any, numbers are those of their tables.
	networks bool
	numbers  []uint64
}

// nothing says that a container can do without tables: it is on no network, and anybody may call it. Then its connections are
// not tracked on its account.
func (w wanted) nothing() bool { return !w.networks && w.callers == nil }

// bring changes what differs, in one transaction, or makes all of it where it is not known.
func (x *space) bring(want wanted, gone, recent []netip.Addr) error {
	if x.have == nil || x.bare && !want.nothing() || (x.callers == nil) != (want.callers == nil) {
		return x.renew(want, recent)
	}
	if x.bare {
		return nil
	}
	have := wanted{table: x.have, counted: x.counted, callers: x.callers}
	var changes []vip.Change
	if !slices.Equal(x.numbers, want.numbers) { // else the same tables: a change of callers costs no look at all services
		changes = vip.Diff(have.table, want.table)
	}
	if len(changes) == 0 && len(gone) == 0 && maps.Equal(have.counted, want.counted) && have.callers == want.callers {
		return nil
	}
	left := vip.Left(have.table, changes)
	next := x.turns.after(have.table, changes)
	err := x.transact(want, next, func(l layout, c *nftables.Conn) error {
		if err := l.change(c, x.id, have.table, changes, x.turns, next); err != nil {
			return err
		}
		if err := l.count(c, have.counted, want.counted); err != nil {
			return err
		}
		if err := l.admit(c, have.callers, want.callers); err != nil {
			return err
		}
		return l.refuse(c, have.table, changes, gone)
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) { // somebody has been here
		return x.renew(want, recent)
	}
	if err == nil {
		x.leave(left, want.table)
	}
	return err
}

// renew makes all of it, over what is there: what stays is in force all the while. Only a table that is no longer ours to
// fill, of another release or changed by somebody, is replaced.
func (x *space) renew(want wanted, recent []netip.Addr) error {
	x.have = nil
	there, err := x.wire.chains(tableName)
	if err != nil {
		return err
	}
	if x.bare = want.nothing() && len(there) == 0; x.bare {
		x.generation, err = x.wire.generation()
		x.have, x.numbers, x.counted, x.callers, x.turns = want.table, want.numbers, want.counted, nil, nil
		return err
	}
	x.renewed = true
	changes := vip.Diff(nil, want.table)
	next := turns{}.after(nil, changes)
	write := func(l layout, c *nftables.Conn, chains map[string]bool) error {
		if err := l.make(c); err != nil {
			return err
		}
		if err := l.bound(c, x.neighbours); err != nil {
			return err
		}
		l.guard(c, want.callers, chains)
		if err := l.admit(c, nil, want.callers); err != nil {
			return err
		}
		if err := l.change(c, x.id, nil, changes, nil, next); err != nil {
			return err
		}
		if err := l.count(c, nil, want.counted); err != nil {
			return err
		}
		return l.refuse(c, nil, changes, recent)
	}
	err = x.transact(want, next, func(l layout, c *nftables.Conn) error {
		if err := write(l, c, set(there)); err != nil {
			return err
		}
		for _, name := range next.useless(there) {
			l.dropChain(c, name)
		}
		return nil
	})
	if err == nil {
		return nil
	}
	return x.transact(want, next, func(l layout, c *nftables.Conn) error {
		c.AddTable(l.table) // so that there is one to remove
		c.DelTable(l.table)
		return write(l, c, nil)
	})
}

// leave notes who has left, and who is back.
func (x *space) leave(left map[netip.Addr]bool, now vip.Table) {
	if len(left)+len(x.left) == 0 {
		return
	}
	if x.left == nil {
		x.left = map[netip.Addr]bool{}
	}
	maps.Copy(x.left, left)
	for _, backends := range now {
		for _, b := range backends {
			delete(x.left, b)
		}
	}
}

// Forget takes clients of UDP, and pings, from the tasks that have left: one that sends from one port would stay with its task for ever. TCP
// ends by itself, or is reset. Where the tables were made anew it is not known who has left since, before our start perhaps: all
// connections are looked at. The kernel looks through all connections of a container for it, so it comes after the
// version is reported.
func (s *Spaces) Forget() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.forget(true)
}

// forget needs the lock. All is also to look for what has left unseen, for which the model must be a dispatcher's.
func (s *Spaces) forget(all bool) error {
	var faults []error
	for _, x := range s.spaces {
		unseen := all && x.renewed
		if x.have == nil || len(x.left) == 0 && !unseen {
			continue
		}
		which := func(f flow) bool { return stays(f.protocol) && x.left[f.replySource] }
		if unseen {
			which = strays(x.have, s.there(x))
		}
		if err := x.wire.forget(which); err != nil {
			faults = append(faults, fmt.Errorf("container %s: %w", x.id, err))
			continue
		}
		clear(x.left)
		x.renewed = x.renewed && !unseen
	}
	return errors.Join(faults...)
}

// transact does one transaction and notes what is in force after it.
func (x *space) transact(want wanted, next turns, write func(layout, *nftables.Conn) error) error {
	before, err := x.wire.generation()
	if err != nil {
		return err
	}
	c, err := nftables.New(nftables.WithTestDial(x.wire.batch))
	if err != nil {
		return err
	}
	if err := write(newLayout(), c); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return err
	}
	after, err := x.wire.generation()
	if err != nil {
		return err
	}
	foreign := x.have != nil && before != x.generation
	x.have, x.numbers, x.counted, x.callers, x.turns, x.generation = want.table, want.numbers, want.counted, want.callers, next, after
	if foreign || after != before+1 { // somebody else has changed something, perhaps in our table: look again
		x.generation = 0
	}
	return nil
}

// clear takes the table away. Where it fails there is nothing left to be cleared, or nobody to tell.
func (x *space) clear() {
	c, err := nftables.New(nftables.WithTestDial(x.wire.batch))
	if err != nil {
		return
	}
	t := newLayout().table
	c.AddTable(t) // so that there is one to remove
	c.DelTable(t)
	_ = c.Flush()
}

// suspect has the tables made anew if somebody has changed the packet filter of the namespace, or in any case.
func (x *space) suspect(inAnyCase bool) {
	if now, err := x.wire.generation(); inAnyCase || err != nil || now != x.generation {
		x.have = nil
	}
}

func set(names []string) map[string]bool {
	out := map[string]bool{}
	for _, name := range names {
		out[name] = true
	}
	return out
}

// taskOf is the task of a container's id: what is before the dot.
func taskOf(id string) string {
	task, _, _ := strings.Cut(id, ".")
	return task
}
