// Package task is the life of one task on its machine, as a pure state machine: what is wanted, what was reported and
// what is there go in, the next step comes out.
//
// It owns the order of the states, the two points where a task waits for the scheduler (ACCEPTED and READY), the way out
// (out of the mesh, then the stop signal, then nothing left), and the words that a person reads. It must never do a step
// itself, read a clock or know containerd: waiting is a timer that the caller sets and reports. A Life belongs to one
// goroutine.
package task

import (
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Presence is what the runtime has of a task.
type Presence uint8

const (
	// Absent says that there is no container.
	Absent Presence = iota
	// Made says that there is a container that was never started, as far as the runtime knows.
	Made
	// Running says that its process lives.
	Running
	// Ended says that its process is gone and its exit is known.
	Ended
)

// Health is what the health check says.
type Health uint8

const (
	// Unchecked says that there is no health check.
	Unchecked Health = iota
	// Unknown says that no look has succeeded yet.
	Unknown
	// Healthy says that it is well.
	Healthy
	// Unhealthy says that it has failed for good: the container is stopped, and the task fails whatever its exit code.
	Unhealthy
)

// drain is how far the time is that connections have.
type drain uint8

const (
	noDrain drain = iota
	drainDue
	drainRuns
	drainOver
)

// Action is a step for the caller to take. All but Cancel, ArmBound, ArmDrain and Forget are answered by a method of Life.
type Action uint8

const (
	// None waits for something to happen.
	None Action = iota
	// Prepare pulls the image, makes the network and the container. Answer: Prepared or Held or Failed.
	Prepare
	// Start starts the prepared container. Answer: Started or Held or Failed.
	Start
	// Stop asks the container to stop, kills it after the grace, and removes all that is left. Answer: Removed or Held.
	Stop
	// Clean removes all that is left, at once. Answer: Removed or Held.
	Clean
	// Cancel ends a Prepare in flight, whose answer is then Held.
	Cancel
	// ArmBound starts the timer whose end is told by BoundOver.
	ArmBound
	// ArmDrain starts the timer whose end is told by DrainOver.
	ArmDrain
	// Forget says that nothing is left and nobody asks for the task any more.
	Forget
)

// String is the action's name in scripts and logs.
func (a Action) String() string {
	return [...]string{"none", "prepare", "start", "stop", "clean", "cancel", "arm-bound", "arm-drain", "forget"}[a]
}

// Life is one task on this machine. The first block is what is reported and journaled; the rest is found out again after
// a restart.
type Life struct {
	State   typesv1.TaskState // observed; 0 before the first step
	Ready   bool
	Message string
	Exit    *Exit // of the container, when it ended
	Health  Health

	desired   typesv1.TaskState
	known     bool // the cluster has said something of it in this life of the agent
	wanted    bool // in the assignment
	presence  Presence
	prepared  bool   // image, network and container are there, seen by this agent
	leftovers bool   // there may be something to remove
	busy      Action // in flight
	cancelled bool   // Cancel was given
	waiting   bool   // for the retry timer
	failure   string // why it can't go on
	passed    bool   // the mesh has let go
	armed     bool   // the bound's timer runs
	bound     bool   // it has ended
	drain     drain  // of its connections, once the mesh has let go
	stopped   bool   // the container was ended by us
	asked     bool   // an earlier life of the agent was told to stop it
	sick      string // why its health check has failed for good
	gate      bool   // it has a readiness probe
	closed    string // what that says when it takes no connections
}

// Desired says how far the task should be.
func (l *Life) Desired(d typesv1.TaskState) {
	if !l.wanted { // it was dropped and is back: its next stop waits for the mesh anew
		l.passed, l.armed, l.bound = false, false, false
		l.drain = min(l.drain, drainDue)
	}
	l.known, l.wanted = true, true
	l.desired = max(l.desired, d) // it only rises
}

// Dropped says that the task is no longer this machine's.
func (l *Life) Dropped() { l.known, l.wanted = true, false }

// Found tells what the runtime has, at the agent's start. Leftovers says whether anything of it exists.
func (l *Life) Found(p Presence, leftovers bool, exit *Exit) {
	l.presence, l.leftovers = p, leftovers
	if p == Ended {
		l.Exit = exit
	}
}

// WasAsked says that an earlier life of the agent was told to stop the task: if its container has ended since, it was
// stopped.
func (l *Life) WasAsked() { l.asked = true }

// Checked says which probes the container has, before it is started, or when it is found. What was reported before holds
// until a look says otherwise.
func (l *Life) Checked(healthcheck, readiness bool) {
	switch {
	case !healthcheck:
		l.Health = Unchecked
	case l.Health == Unchecked && l.State >= running:
		l.Health = Healthy
	case l.Health == Unchecked:
		l.Health = Unknown
	}
	l.gate = readiness
	if readiness && !(l.State >= running && l.Ready) {
		l.closed = "waits for its readiness probe"
	}
}

// Opening says that a container without probes was started and does not listen yet.
func (l *Life) Opening() { l.closed = "waits until it listens" }

// Opens says whether that is still awaited.
func (l *Life) Opens() bool { return !l.gate && l.closed != "" }

// WasUnhealthy says that an earlier life of the agent has seen the health check fail for good.
func (l *Life) WasUnhealthy(why string) { l.Health, l.sick = Unhealthy, why }

// Looked says what the health check says now. Why is in words, for a container that is unhealthy.
func (l *Life) Looked(h Health, why string) {
	if l.Health == Unchecked || l.Health == Unhealthy || l.presence != Running || l.stopped {
		return
	}
	l.Health = h
	if h == Unhealthy {
		l.sick = why
	}
}

// Answers says whether the container takes connections, and why not.
func (l *Life) Answers(ok bool, why string) {
	l.closed = ""
	if !ok {
		l.closed = "takes no connections: " + why
	}
}

// MeshPassed says that every meshproxy has dropped the task.
func (l *Life) MeshPassed() { l.passed = true }

// BoundOver says that the longest wait for that is over.
func (l *Life) BoundOver() { l.bound = l.armed }

// Drains says that its connections have time to end before it is stopped.
func (l *Life) Drains() { l.drain = max(l.drain, drainDue) }

// DrainOver says that this time is over.
func (l *Life) DrainOver() {
	if l.drain == drainRuns {
		l.drain = drainOver
	}
}

// RetryDue says that a step that was held may be tried again.
func (l *Life) RetryDue() { l.waiting = false }

// Prepared answers Prepare.
func (l *Life) Prepared() { l.answer(); l.prepared, l.presence = true, Made }

// Vanished says that the runtime has no container any more: somebody deleted it.
func (l *Life) Vanished() { l.presence, l.prepared = Absent, false }

// Progress says how far a Prepare in flight is.
func (l *Life) Progress(how string) {
	if l.busy == Prepare && l.State == preparing {
		l.Message = how
	}
}

// Started answers Start.
func (l *Life) Started() {
	l.answer()
	if l.presence != Ended { // its end may be told before its start
		l.presence = Running
	}
}

// Removed answers Stop and Clean. The exit is that of a container that this step has ended; else nil.
func (l *Life) Removed(exit *Exit) {
	if l.busy == Stop && exit != nil {
		l.Exit = exit
	}
	l.answer()
	l.presence, l.leftovers, l.prepared = Absent, false, false
}

// Held answers a step that could not be done now. The caller calls RetryDue later.
func (l *Life) Held(why string) {
	if !l.cancelled {
		l.waiting = true
		if !l.Over() { // how it ended is the more important news
			l.Message = why
		}
	}
	l.answer()
}

// Failed answers a Prepare or Start that can't work.
func (l *Life) Failed(why string) { l.answer(); l.failure = why }

// Exited says that the container's process has ended.
func (l *Life) Exited(exit Exit) {
	if l.presence == Absent {
		return
	}
	l.Exit = &exit
	if !l.stopped { // else it is we who end it, and Removed tells when all is gone
		l.presence = Ended
	}
}

// Done says whether the task has ended and nothing is left of it, while the cluster wants it to run.
func (l *Life) Done() bool {
	return l.Over() && l.wanted && l.desired == running && l.busy == None && !l.waiting && !l.leftovers && l.presence == Absent
}

// Again begins a further attempt of a task that is Done: the cluster can't be asked for another task in its place.
func (l *Life) Again() {
	*l = Life{State: preparing, Message: "again, while no dispatcher is there", desired: l.desired, known: true, wanted: true}
}

// Serves says whether the container runs: somebody should wait for its end.
func (l *Life) Serves() bool { return l.presence == Running }

// Wanted says whether the task is in the assignment.
func (l *Life) Wanted() bool { return l.wanted }

// Leaving says whether the task is on its way out.
func (l *Life) Leaving() bool { return l.known && (!l.wanted || l.desired >= shutdown) }

// Over says whether the task has reached a state that it never leaves.
func (l *Life) Over() bool { return l.State >= complete }

// Phase is the step in flight.
func (l *Life) Phase() Action { return l.busy }

func (l *Life) answer() { l.busy, l.cancelled = None, false }
