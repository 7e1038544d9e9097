package endpoint

import (
	"errors"
	"io"
	"sync"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/barrier"
	"github.com/shoalproject/shoal/services/dispatcher/internal/bulletin"
	"github.com/shoalproject/shoal/services/dispatcher/internal/mesh"
)

// feed is what one meshproxy was sent and has answered. It lives within one epoch.
type feed struct {
	stream stream
	board  *bulletin.Board
	node   string
	place  *barrier.Stream

	// Owned by the sender.
	tables    *mesh.Tables
	trust     *dispatcherv1.Trust
	directory *cav1.Directory
	stale     bool

	mu    sync.Mutex    // guards below
	sent  state.Version // of the last change sent
	seen  state.Version // up to which nothing else changed for this machine
	acked state.Version // of the last change in force
}

func (f *feed) receive() error {
	for {
		m, err := f.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		f.answered(state.VersionOf(m.GetApplied()))
		f.report()
	}
}

// answered ignores what is in force from another epoch, or from another dispatcher before the first tables of this one.
func (f *feed) answered(v state.Version) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.sent.IsZero() && f.sent.Reaches(v) && !f.acked.Reaches(v) {
		f.acked = v
	}
}

// report tells the barrier how far this meshproxy is.
func (f *feed) report() {
	if v := f.inForce(); !v.IsZero() {
		f.place.Report(v)
	}
}

func (f *feed) inForce() state.Version {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.sent.IsZero() && f.acked.Reaches(f.sent) {
		return f.seen
	}
	return f.acked
}

// note keeps what the meshproxy is about to be told, before it can answer.
func (f *feed) note(v state.Version, change bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.seen.IsZero() && !f.seen.SameEpoch(v) {
		return errs.New(errs.Unavailable, "the store's history was replaced: open a new stream")
	}
	f.seen = v
	if change {
		f.sent = v
	}
	return nil
}

func (f *feed) send(e *edition) error {
	r, tables := f.difference(e)
	v := e.snapshot.Version()
	if err := f.note(v, r != nil); err != nil {
		return err
	}
	if r == nil {
		f.tables = tables
		f.report()
		return nil
	}
	r.Version, r.Stale = v.Proto(), e.stale
	if err := f.stream.Send(r); err != nil {
		return err
	}
	f.tables, f.trust, f.directory = tables, orOld(r.GetTrust(), f.trust), orOld(r.GetDirectory(), f.directory)
	f.stale = e.stale
	return nil
}

func orOld[M comparable](next, old M) M {
	var none M
	if next == none {
		return old
	}
	return next
}

// difference is what the machine does not know yet, nil if nothing.
func (f *feed) difference(e *edition) (*dispatcherv1.EndpointsResponse, *mesh.Tables) {
	next := mesh.Of(e.snapshot, f.node, e.shared, f.tables)
	var r *dispatcherv1.EndpointsResponse
	if f.tables == nil {
		r = mesh.Full(next)
	} else {
		r = mesh.Diff(f.tables, next)
	}
	news := f.board.At(e.snapshot)
	if r == nil && (f.trust != news.Trust || f.directory != news.Directory || f.stale != e.stale) {
		r = &dispatcherv1.EndpointsResponse{DataPort: next.Shared.DataPort, MachineNetwork: next.Shared.MachineNetwork}
	}
	if r != nil && f.trust != news.Trust {
		r.Trust = news.Trust
	}
	if r != nil && f.directory != news.Directory {
		r.Directory = news.Directory
	}
	return r, next
}
