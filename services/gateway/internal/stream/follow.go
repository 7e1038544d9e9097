package stream

import (
	"context"
	"errors"

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

// follow asks about every task that is there or comes, and sends all answers as they come, until ctx ends, send fails, or
// leave says so. It has one sender.
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
	s.tasks.Go(ctx, "places", func(ctx context.Context) error {
		readers, known := map[string]*reader[R]{}, map[string]*logsv1.Place{}
		err := s.places(ctx, req, func(r *logsv1.PlacesResponse) error {
			for _, p := range r.GetPlaces() {
				if proto.Equal(known[p.GetTaskId()], p) {
					continue // said again by another dispatcher
				}
				known[p.GetTaskId()] = p
				if old := readers[p.GetTaskId()]; old != nil {
					old.tell(p)
					continue
				}
				one := &reader[R]{question: q, dispatchers: s.dispatchers, news: make(chan *logsv1.Place, 1), put: put}
				readers[p.GetTaskId()] = one
				s.tasks.Go(ctx, "reader", func(ctx context.Context) error {
					_ = one.run(ctx, p) // what a person must know has been put
					return nil
				})
			}
			for _, id := range r.GetGone() {
				if last, ok := gone(known[id]); ok {
					if err := put(last); err != nil {
						return err
					}
				}
				delete(readers, id)
				delete(known, id)
			}
			return nil
		})
		cancel(err)
		return nil
	})
	for {
		select {
		case r := <-out:
			if err := send(r); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
