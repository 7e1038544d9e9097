package session

import (
	"sync"
	"time"
)

// answerEach is how long a heartbeat may wait for its answer, so that those of many machines are answered together: each by
// itself would wake an idle processor. It is nothing beside the silence after which a machine goes elsewhere, and short enough
// for the answer to carry the receipt of the heartbeat's packet, for which a machine's kernel waits 40 ms.
const answerEach = 20 * time.Millisecond

// answers are the sessions whose machines wait for an answer to a heartbeat.
type answers struct {
	mu  sync.Mutex // guards due
	due []*line
}

// add has a session's sender look into its outbox soon.
func (a *answers) add(l *line) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.due = append(a.due, l); len(a.due) == 1 {
		time.AfterFunc(answerEach, a.ring)
	}
}

func (a *answers) ring() {
	for _, l := range a.take() {
		l.box.bell()
	}
}

func (a *answers) take() []*line {
	a.mu.Lock()
	defer a.mu.Unlock()
	due := a.due
	a.due = nil
	return due
}
