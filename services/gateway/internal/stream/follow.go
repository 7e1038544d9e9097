package stream

import (
	"context"
	"errors"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

// errEnough ends a Places stream of which no more is needed.
var errEnough = errors.New("enough")

// once is where the tasks are now.
func (s *Server) once(ctx context.Context, req *logsv1.PlacesRequest) ([]*logsv1.Place, error) {
	var list []*logsv1.Place
	err := s.places(ctx, req, func(r *logsv1.PlacesResponse) error {
		list = r.GetPlaces()
		return errEnough
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return list, err
}

// following is who reads what for one call. Its maps belong to the goroutine that hears of places.
type following[R any] struct {
	*Server
	question *question[R]
	put      func(R) error
	gone     func(p *logsv1.Place) (R, bool)
	known    map[string]*logsv1.Place
	readers  map[string]*reader[R]

	// open counts the readers at work, so that the last one ends a call that no other task will come to.
	open     atomic.Int64
	complete atomic.Bool
	end      context.CancelCauseFunc
}

// follow asks about every task that is there or comes, and sends all answers as they come, until ctx ends or send fails; or
// until all tasks have ended, if the question is over then and the targets are tasks themselves. It has one sender.
func follow[R any](ctx context.Context, s *Server, req *logsv1.PlacesRequest, q *question[R],
	gone func(p *logsv1.Place) (R, bool), send func(R) error,
) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := make(chan R)
	put := func(r R) error {
		select {
		case out <- r:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	f := &following[R]{Server: s, question: q, put: put, gone: gone, end: cancel,
		known: map[string]*logsv1.Place{}, readers: map[string]*reader[R]{}}
	s.tasks.Go(ctx, "places", func(ctx context.Context) error {
		cancel(s.places(ctx, req, func(r *logsv1.PlacesResponse) error { return f.hear(ctx, r) }))
		return nil
	})
	for {
		select {
		case r := <-out:
			if err := send(r); err != nil {
				return err
			}
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, errEnough) {
				return err
			}
			return nil
		}
	}
}

// hear takes what is told of places.
func (f *following[R]) hear(ctx context.Context, r *logsv1.PlacesResponse) error {
	f.open.Add(1) // no reader is the last while others are still to begin
	defer f.leave()
	if f.question.ends && r.GetComplete() {
		f.complete.Store(true)
	}
	for _, p := range r.GetPlaces() {
		id := p.GetTaskId()
		if proto.Equal(f.known[id], p) {
			continue // said again by another dispatcher
		}
		f.known[id] = p
		if old := f.readers[id]; old != nil {
			old.tell(p)
			continue
		}
		one := &reader[R]{question: f.question, dispatchers: f.dispatchers, news: make(chan *logsv1.Place, 1), put: f.put}
		f.readers[id] = one
		f.open.Add(1)
		f.tasks.Go(ctx, "reader", func(ctx context.Context) error {
			defer f.leave()
			_ = one.run(ctx, p) // what a person must know has been put
			return nil
		})
	}
	for _, id := range r.GetGone() {
		if last, ok := f.gone(f.known[id]); ok {
			if err := f.put(last); err != nil {
				return err
			}
		}
		if one := f.readers[id]; one != nil {
			close(one.news)
		}
		delete(f.readers, id)
		delete(f.known, id)
	}
	return nil
}

func (f *following[R]) leave() {
	if f.open.Add(-1) == 0 && f.complete.Load() {
		f.end(errEnough)
	}
}
