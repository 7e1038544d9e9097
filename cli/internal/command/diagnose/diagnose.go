// Package diagnose has the commands that ask the cluster's machines about their networks: `doctor network`, `network trace` and
// `top connections`.
//
// It owns how the answers of many machines become one. Each machine's meshproxy looks by itself; nothing is changed anywhere.
package diagnose

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"

	"github.com/shoalproject/shoal/cli/internal/client"
)

const (
	// atOnce is how many machines are asked side by side.
	atOnce = 32
	// patience bounds one machine's answer.
	patience = time.Minute
)

// nodes are the machines that run containers, in order of their hostnames: those that are named, or all.
func nodes(ctx context.Context, cl *client.Client, named []string) ([]*typesv1.Node, error) {
	var all []*typesv1.Node
	for token := ""; ; {
		r, err := cl.Nodes.ListNodes(ctx, &controlv1.ListNodesRequest{PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, l := range r.GetNodes() {
			if roles := l.GetNode().GetIdentity().GetRoles(); len(roles) == 0 || slices.Contains(roles, authzv1.Role_ROLE_AGENT) {
				all = append(all, l.GetNode())
			}
		}
		if token = r.GetNextPageToken(); token == "" {
			break
		}
	}
	slices.SortFunc(all, func(a, b *typesv1.Node) int { return cmp.Compare(state.Hostname(a), state.Hostname(b)) })
	if len(named) == 0 {
		return all, nil
	}
	var out []*typesv1.Node
	for _, name := range named {
		i := slices.IndexFunc(all, func(n *typesv1.Node) bool { return n.GetMeta().GetId() == name || state.Hostname(n) == name })
		if i < 0 {
			return nil, errs.New(errs.NotFound, "no machine that runs containers is called %q; `shoal node ls` names them", name)
		}
		out = append(out, all[i])
	}
	return out, nil
}

// names are hostnames by id.
func names(all []*typesv1.Node) map[string]string {
	out := map[string]string{}
	for _, n := range all {
		out[n.GetMeta().GetId()] = state.Hostname(n)
	}
	return out
}

// asked is what one machine has answered, as far as it has.
type asked[R any] struct {
	node  *typesv1.Node
	parts []R
	// began and first are when it was asked and when its first part came.
	began, first time.Time
	err          error
}

// ask asks machines side by side.
func ask[R any](ctx context.Context, now func() time.Time, of []*typesv1.Node,
	call func(ctx context.Context, node string) (grpc.ServerStreamingClient[R], error),
) []asked[*R] {
	out := make([]asked[*R], len(of))
	places := make([]int, len(of))
	for i := range places {
		places[i] = i
	}
	err := run.Each(ctx, atOnce, places, func(ctx context.Context, i int) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		a := asked[*R]{node: of[i], began: now()}
		stream, err := call(ctx, of[i].GetMeta().GetId())
		for err == nil {
			var part *R
			if part, err = stream.Recv(); err == nil {
				if a.parts = append(a.parts, part); len(a.parts) == 1 {
					a.first = now()
				}
			}
		}
		if !errors.Is(err, io.EOF) {
			a.err = err
		}
		out[i] = a
		return nil
	})
	if err != nil && len(out) > 0 {
		out[0].err = errors.Join(out[0].err, err)
	}
	return out
}
