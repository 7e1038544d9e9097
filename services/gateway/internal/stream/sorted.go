package stream

import (
	"context"
	"sync"

	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

// positions are how far each task was read.
type positions struct {
	mu sync.Mutex // guards of
	of map[string]string
}

func (p *positions) get(task string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of[task]
}

func (p *positions) set(task, position string) {
	if position == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = map[string]string{}
	}
	p.of[task] = position
}

// sorted sends what every task has written up to now, in the order of the lines' times. Each task has one answer on its way
// at most; the slowest machine sets the pace until it counts as missing.
func (s *Server) sorted(ctx context.Context, where *logsv1.PlacesRequest, o *logsv1.LogOptions, send func(*logsv1.LogsResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	list, err := s.once(ctx, where)
	if err != nil {
		return err
	}
	q := questionOf(o, &positions{})
	heads := make([]*head, 0, len(list))
	for _, p := range list {
		h := &head{answers: make(chan *logsv1.LogsResponse)}
		heads = append(heads, h)
		one := &reader[*logsv1.LogsResponse]{question: q, dispatchers: s.dispatchers, news: make(chan *logsv1.Place, 1)}
		one.put = func(r *logsv1.LogsResponse) error {
			select {
			case h.answers <- r:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		s.tasks.Go(ctx, "reader", func(ctx context.Context) error {
			defer close(h.answers)
			_ = one.run(ctx, p) // what a person must know has been put
			return nil
		})
	}
	return merge(ctx, heads, send)
}

// head is the front of one task's lines.
type head struct {
	answers chan *logsv1.LogsResponse
	task    *logsv1.Place
	lines   []*logsv1.LogLine
}

// fill waits for the next lines; it is false at their end. What is missing is sent at once.
func (h *head) fill(ctx context.Context, send func(*logsv1.LogsResponse) error) (bool, error) {
	for len(h.lines) == 0 {
		select {
		case r, more := <-h.answers:
			if !more {
				return false, nil
			}
			if r.GetMissing() != "" {
				if err := send(r); err != nil {
					return false, err
				}
			}
			h.task, h.lines = r.GetTask(), r.GetLines()
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	return true, nil
}

// merge sends the oldest lines first.
func merge(ctx context.Context, heads []*head, send func(*logsv1.LogsResponse) error) error {
	for {
		var first, second *head
		rest := heads[:0]
		for _, h := range heads {
			more, err := h.fill(ctx, send)
			if err != nil {
				return err
			}
			if !more {
				continue
			}
			rest = append(rest, h)
			switch {
			case first == nil || before(h, first):
				first, second = h, first
			case second == nil || before(h, second):
				second = h
			}
		}
		if heads = rest; first == nil {
			return nil
		}
		n := 1
		for n < len(first.lines) && (second == nil || !first.lines[n].GetAt().AsTime().After(second.lines[0].GetAt().AsTime())) {
			n++
		}
		if err := send(&logsv1.LogsResponse{Task: first.task, Lines: first.lines[:n]}); err != nil {
			return err
		}
		first.lines = first.lines[n:]
	}
}

func before(a, b *head) bool { return a.lines[0].GetAt().AsTime().Before(b.lines[0].GetAt().AsTime()) }
