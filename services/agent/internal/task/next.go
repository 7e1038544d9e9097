package task

import (
	"strings"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	accepted  = typesv1.TaskState_TASK_STATE_ACCEPTED
	preparing = typesv1.TaskState_TASK_STATE_PREPARING
	ready     = typesv1.TaskState_TASK_STATE_READY
	starting  = typesv1.TaskState_TASK_STATE_STARTING
	running   = typesv1.TaskState_TASK_STATE_RUNNING
	complete  = typesv1.TaskState_TASK_STATE_COMPLETE
	shutdown  = typesv1.TaskState_TASK_STATE_SHUTDOWN
	failed    = typesv1.TaskState_TASK_STATE_FAILED
	rejected  = typesv1.TaskState_TASK_STATE_REJECTED
)

// Next takes the task on as far as it goes without help, and returns the step to take now. The reported fields may have
// changed: the caller compares. It is to be called after every method of Life, until it returns None.
func (l *Life) Next() Action {
	for range 16 { // there are fewer states than that
		before := *l
		if a := l.step(); a != None {
			if a == Prepare || a == Start || a == Stop || a == Clean {
				l.busy = a
			}
			return a
		}
		if *l == before {
			return None
		}
	}
	return None
}

// step makes one change of l, or returns an action, or neither when there is nothing to do.
func (l *Life) step() Action {
	switch {
	case !l.known:
		l.look()
		return None
	case l.busy == Prepare && l.Leaving() && !l.cancelled:
		l.cancelled = true
		return Cancel
	case l.Over():
		return l.end()
	case l.presence == Ended:
		l.ended()
		return None
	case l.sick != "" && !l.Leaving():
		return l.expel()
	case l.Leaving():
		return l.leave()
	case l.busy != None || l.waiting:
		return None
	case l.failure != "":
		l.fail(l.failure)
		return None
	}
	return l.advance()
}

// look reports what is there before the first assignment has come, and touches nothing.
func (l *Life) look() {
	switch {
	case l.Over():
	case l.presence == Ended:
		l.ended()
	case l.presence == Running && l.State < running && l.Health != Unknown:
		l.serve()
	}
}

// end removes what is left of a task that is over. Its last state is reported before: a person who waits for the exit
// code shall not wait for the disk.
func (l *Life) end() Action {
	switch {
	case l.busy != None || l.waiting:
		return None
	case l.leftovers:
		return Clean
	case !l.wanted:
		return Forget
	}
	return None
}

// ended reports how the container ended by itself. A task that was asked to leave and ended before we stopped it tells
// the truth too.
func (l *Life) ended() {
	l.leftovers = true
	if l.Exit == nil {
		l.fail("the container ended and its exit code is lost")
		return
	}
	switch {
	case l.sick != "":
		l.fail(l.sick + "; " + l.Exit.Words())
	case l.asked:
		l.report(shutdown, false, "stopped: "+l.Exit.Words())
	case l.Exit.Code == 0:
		l.report(complete, false, l.Exit.Words())
	default:
		l.report(failed, false, l.Exit.Words())
	}
}

// leave takes a task out: out of the mesh first, so that no new connection reaches a process that is about to end, and then not before those
// that it has have had their time.
func (l *Life) leave() Action {
	if l.presence == Running && l.busy == None {
		return l.bow()
	}
	switch {
	case l.busy != None || l.waiting:
		return None
	case l.leftovers || l.presence != Absent:
		return Clean
	case l.sick != "" && l.Exit != nil:
		l.fail(l.sick + "; " + l.Exit.Words())
	case l.sick != "":
		l.fail(l.sick)
	case l.stopped && l.Exit != nil:
		l.report(shutdown, false, "stopped: "+l.Exit.Words())
	case l.stopped:
		l.report(shutdown, false, "stopped")
	case l.State >= starting:
		l.fail(gone)
	default:
		l.report(shutdown, false, "stopped before it was started")
	}
	return None
}

// bow lets go of a container that runs: whoever it has may end, then it is told to stop.
func (l *Life) bow() Action {
	l.Ready = false
	switch {
	case l.waiting: // a stop that was held; its message says why
	case !l.passed && !l.bound:
		l.Message = "waits until no machine sends it new connections"
		if !l.armed {
			l.armed = true
			return ArmBound
		}
	case l.drain == drainDue && l.State >= running: // nobody was led to it before
		l.Message, l.drain = "waits while its connections have time to end", drainRuns
		return ArmDrain
	case l.drain == drainRuns:
	default:
		l.Message = "stopping"
		l.stopped = true
		return Stop
	}
	return None
}

// expelled follows the reason while an unhealthy container is stopped.
const expelled = "; stopping"

// WhyUnhealthy is the reason in a message that was reported while an unhealthy container was stopped.
func WhyUnhealthy(message string) string {
	why, _, _ := strings.Cut(message, expelled)
	if !strings.HasPrefix(why, "unhealthy: ") { // another message came after it
		return "unhealthy: its health check has failed"
	}
	return why
}

// expel stops a container that is unhealthy. It is out of the mesh at once; there is no revision to wait for, since nobody
// has asked for its end. Its task has failed whatever the exit code says: a process that ends well when it is asked to was
// asked because it was not well.
func (l *Life) expel() Action {
	switch {
	case l.busy != None || l.waiting:
	case l.presence == Running:
		l.Ready, l.Message, l.stopped = false, l.sick+expelled, true
		return Stop
	case l.leftovers || l.presence != Absent:
		return Clean
	case l.Exit != nil:
		l.fail(l.sick + "; " + l.Exit.Words())
	default:
		l.fail(l.sick)
	}
	return None
}

// gone is told when what was started is not there: the machine was switched off, somebody deleted the container, or it ended while no
// containerd was there, of which one from 1.7 on knows nothing when it is back.
const gone = "the container is gone: its machine was restarted, it was deleted by hand, or it ended while containerd was away"

// advance is the way up. What the runtime has wins over what was reported: a container that runs is RUNNING.
func (l *Life) advance() Action {
	switch {
	case l.presence == Running:
		l.serve()
	case l.State < accepted:
		l.report(accepted, false, "")
	case l.State == accepted && l.desired > accepted:
		l.report(preparing, false, "")
	case l.State == preparing && l.prepared:
		l.report(ready, false, "")
	case l.State == preparing:
		l.leftovers = true // from the first attempt on there may be something to remove
		return Prepare
	case l.State == ready && l.desired > ready && !l.prepared:
		return Prepare // prepared by an earlier life of the agent: see that all is there
	case l.State == ready && l.desired > ready:
		l.report(starting, false, "")
	case l.State == starting && l.prepared && l.presence == Made:
		return Start
	case l.State == starting && l.presence == Made:
		return Prepare // the agent ended between the report and the start
	case l.State >= starting:
		l.fail(gone)
	}
	return None
}

// serve says how far a container that runs is: STARTING until it is healthy, and in the mesh while it is ready.
func (l *Life) serve() {
	if l.Health == Unknown && l.State < running {
		l.report(starting, false, "waits until its health check succeeds")
		return
	}
	l.report(running, l.closed == "", l.closed)
}

// fail ends the task: before STARTING it could not be had (REJECTED), from then on it failed.
func (l *Life) fail(why string) {
	if l.State < starting {
		l.report(rejected, false, why)
		return
	}
	l.report(failed, false, why)
}

func (l *Life) report(s typesv1.TaskState, ready bool, message string) {
	l.State, l.Ready, l.Message = s, ready, message
}
