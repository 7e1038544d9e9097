package session

import (
	"context"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/bulletin"
)

// herald rings the sessions that a change of the store may concern, until ctx ends. Most changes concern one machine of
// thousands; if each session looked at each of them itself, a change would cost as much as the cluster is large.
func (s *Server) herald(ctx context.Context) {
	var told *state.Snapshot
	var board bulletin.News
	for rose := false; ; {
		// Before the looks, so that nothing is missed between the two.
		changed, risen := s.View.Changed(), s.Barrier.Risen()
		if rose {
			s.lines.ringWaiting()
			rose = false
		}
		now := s.View.Snapshot()
		if now != told {
			news := s.Board.At(now)
			if nodes, few := concerned(told, now); few && news == board {
				s.lines.ring(nodes)
			} else {
				s.lines.ringAll()
			}
			told, board = now, news
		}
		select {
		case <-changed:
		case <-risen:
			rose = true
		case <-ctx.Done():
			return
		}
	}
}

// concerned are the machines whose assignment, or session, may be another than before. It is false when that may be all.
// What all are told alike is the board's.
func concerned(old, now *state.Snapshot) (nodes map[string]struct{}, few bool) {
	if old == nil {
		return nil, false
	}
	keys, known := now.ChangedSince(old.Version())
	if !known {
		return nil, false
	}
	nodes = map[string]struct{}{}
	for _, k := range keys {
		switch k.Kind {
		case typesv1.Kind_KIND_TASK:
			nodes[old.Task(k.ID).GetDecided().GetNodeId()] = struct{}{}
			nodes[now.Task(k.ID).GetDecided().GetNodeId()] = struct{}{}
		case typesv1.Kind_KIND_SERVICE:
			for t := range now.TasksOfService(k.ID) {
				nodes[t.GetDecided().GetNodeId()] = struct{}{}
			}
		case typesv1.Kind_KIND_NODE:
			nodes[k.ID] = struct{}{}
		case typesv1.Kind_KIND_NETWORK, typesv1.Kind_KIND_CLUSTER:
			return nil, false
		default:
		}
	}
	return nodes, true
}
