// Package answer tells people why tasks are where they are, and what would happen if.
//
// It owns the way from a request to a question that packages explain and forecast answer, and how much of that is done at
// once: one answer at a time, so that the decisions of the same process are not held up by the curious. It answers from the
// replica, whether this scheduler is the active one or a standby, and has nothing to write with. Safe for concurrent use.
package answer

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	schedulerv1 "github.com/shoalproject/shoal/proto/shoal/scheduler/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/explain"
	"github.com/shoalproject/shoal/services/scheduler/internal/forecast"
)

const (
	// turn is how long a question waits for those before it, and catchUp for the replica.
	turn    = 5 * time.Second
	catchUp = 5 * time.Second
	// longest bounds one answer.
	longest = 20 * time.Second
	// mostObjects bounds a change.
	mostObjects = 1000
)

// View is the replica.
type View interface {
	Snapshot() *state.Snapshot
	Health() error
	WaitFor(ctx context.Context, v state.Version) error
}

// Answers answers.
type Answers struct {
	view View
	busy chan struct{}
}

// New makes it.
func New(view View) *Answers { return &Answers{view: view, busy: make(chan struct{}, 1)} }

// Register offers both services.
func (a *Answers) Register(r grpc.ServiceRegistrar) {
	schedulerv1.RegisterExplainServiceServer(r, explains{Answers: a})
	schedulerv1.RegisterPlanServiceServer(r, plans{Answers: a})
}

// begin waits for its turn and for the state; done must be called.
func (a *Answers) begin(ctx context.Context, atLeast *typesv1.Version) (s *state.Snapshot, done func(), err error) {
	wait := time.NewTimer(turn)
	defer wait.Stop()
	select {
	case a.busy <- struct{}{}:
	case <-wait.C:
		return nil, nil, errs.New(errs.Unavailable, "this scheduler answers others; try again")
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	done = func() { <-a.busy }
	if s, err = a.snapshot(ctx, atLeast); err != nil {
		done()
		return nil, nil, err
	}
	return s, done, nil
}

func (a *Answers) snapshot(ctx context.Context, atLeast *typesv1.Version) (*state.Snapshot, error) {
	if atLeast != nil {
		ctx, cancel := context.WithTimeout(ctx, catchUp)
		defer cancel()
		if err := a.view.WaitFor(ctx, state.VersionOf(atLeast)); err != nil {
			return nil, errs.New(errs.Unavailable, "this scheduler is behind revision %d: %w", atLeast.GetRevision(), err)
		}
	}
	if err := a.view.Health(); err != nil {
		return nil, errs.New(errs.Unavailable, "this scheduler does not know the present state: %w", err)
	}
	return a.view.Snapshot(), nil
}

type explains struct {
	schedulerv1.UnimplementedExplainServiceServer
	*Answers
}

// Explain implements ExplainService.
func (e explains) Explain(ctx context.Context, req *schedulerv1.ExplainRequest) (*schedulerv1.ExplainResponse, error) {
	s, done, err := e.begin(ctx, req.GetAtLeast())
	if err != nil {
		return nil, err
	}
	defer done()
	svc, err := service(s, req.GetService())
	if err != nil {
		return nil, err
	}
	return explain.Of(s, explain.Question{Service: svc, Task: req.GetTask(), Nodes: req.GetNodes()})
}

type plans struct {
	schedulerv1.UnimplementedPlanServiceServer
	*Answers
}

// Plan implements PlanService.
func (p plans) Plan(ctx context.Context, req *schedulerv1.PlanRequest) (*schedulerv1.PlanResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	s, done, err := p.begin(ctx, req.GetAtLeast())
	if err != nil {
		return nil, err
	}
	defer done()
	c, err := change(s, req)
	if err != nil {
		return nil, err
	}
	out := forecast.Of(s, c, func() bool { return ctx.Err() != nil })
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("look ahead: %w", err)
	}
	return out, nil
}

// change is what the request would have different. What is in an object has been judged by the store, or is the asker's own
// fault: nobody else sees it.
func change(s *state.Snapshot, req *schedulerv1.PlanRequest) (forecast.Change, error) {
	const what = "plan"
	var c forecast.Change
	var faults errs.Collector
	effect := req.GetEffect()
	total := len(effect.GetPuts()) + len(effect.GetRemovals()) + len(req.GetPowerOff())
	faults.Check(total > 0, "effect", "is missing, and no node is to be switched off: nothing would change")
	faults.Check(total <= mostObjects, "effect", "has %d changes, at most %d are taken", total, mostObjects)
	for i, o := range effect.GetPuts() {
		key := state.KeyOf(o)
		faults.Check(planned(key.Kind) && key.ID != "", fmt.Sprintf("effect.puts[%d]", i), "must be a service or a node, with an id")
		c.Puts = append(c.Puts, o)
	}
	for i, r := range effect.GetRemovals() {
		faults.Check(planned(r.GetKind()) && r.GetId() != "", fmt.Sprintf("effect.removals[%d]", i), "must be a service or a node, with an id")
		c.Removals = append(c.Removals, state.Key{Kind: r.GetKind(), ID: r.GetId()})
	}
	if err := faults.Err(what); err != nil {
		return c, err
	}
	for _, ref := range req.GetPowerOff() {
		n, err := node(s, ref)
		if err != nil {
			return c, err
		}
		c.PowerOff = append(c.PowerOff, n.GetMeta().GetId())
	}
	return c, nil
}

func planned(k typesv1.Kind) bool {
	return k == typesv1.Kind_KIND_SERVICE || k == typesv1.Kind_KIND_NODE
}

// service takes an id, a name or a unique prefix of an id.
func service(s *state.Snapshot, ref string) (*typesv1.Service, error) {
	if svc := s.Service(ref); svc != nil {
		return svc, nil
	}
	if svc := s.ServiceByName(ref); svc != nil {
		return svc, nil
	}
	var found []*typesv1.Service
	for svc := range s.Services() {
		if ref != "" && strings.HasPrefix(svc.GetMeta().GetId(), ref) {
			found = append(found, svc)
		}
	}
	return only("service", ref, found)
}

// node takes an id, a hostname or a unique prefix of an id.
func node(s *state.Snapshot, ref string) (*typesv1.Node, error) {
	if n := s.Node(ref); n != nil {
		return n, nil
	}
	found := s.NodesByHostname(ref)
	if len(found) == 0 {
		for n := range s.Nodes() {
			if ref != "" && strings.HasPrefix(n.GetMeta().GetId(), ref) {
				found = append(found, n)
			}
		}
	}
	return only("node", ref, found)
}

func only[T any](kind, ref string, found []*T) (*T, error) {
	switch len(found) {
	case 0:
		return nil, errs.New(errs.NotFound, "no such %s: %s", kind, ref)
	case 1:
		return found[0], nil
	}
	return nil, errs.New(errs.Invalid, "%s %s is ambiguous: %d match; use the id", kind, ref, len(found))
}
