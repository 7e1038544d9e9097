package rpc

import (
	"context"

	"google.golang.org/grpc/resolver"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
)

const targetScheme = "shoal"

// memberResolver tells a ClientConn the addresses of its members, one endpoint a member with its addresses best first,
// and tends the ClientConn's connections: both for as long as the ClientConn lives. One is made for each ClientConn.
type memberResolver struct {
	env     run.Env
	ledger  *ledger // nil for a client without an identity
	entries func() [][]string
	changed func() <-chan struct{} // nil: never
	stop    context.CancelFunc
}

// Scheme is that of client's targets.
func (*memberResolver) Scheme() string { return targetScheme }

// Build starts following.
func (r *memberResolver) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	ctx, stop := context.WithCancel(context.Background())
	tasks := run.NewSpawner(r.env.Log)
	// The first answer is given here, or the first call of a test might find nobody.
	var changed <-chan struct{}
	if r.changed != nil {
		changed = r.changed()
	}
	r.tell(cc)
	if r.changed != nil {
		tasks.Go(ctx, "directory", func(ctx context.Context) error { return r.follow(ctx, cc, changed) })
	}
	if r.ledger != nil {
		tasks.Go(ctx, "rights", r.ledger.run)
	}
	return &memberResolver{stop: stop}, nil
}

func (r *memberResolver) follow(ctx context.Context, cc resolver.ClientConn, changed <-chan struct{}) error {
	for {
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
		changed = r.changed()
		r.tell(cc)
	}
}

func (r *memberResolver) tell(cc resolver.ClientConn) {
	var state resolver.State
	for _, addrs := range r.entries() {
		var e resolver.Endpoint
		for _, a := range addrs {
			e.Addresses = append(e.Addresses, resolver.Address{Addr: a})
		}
		state.Endpoints = append(state.Endpoints, e)
	}
	if len(state.Endpoints) == 0 {
		cc.ReportError(errs.New(errs.Unavailable, "the directory has no member of that role yet"))
		return
	}
	if err := cc.UpdateState(state); err != nil {
		r.env.Log.Debug("balancer refused the member list", "error", err)
	}
}

// ResolveNow does nothing: the directory tells by itself.
func (*memberResolver) ResolveNow(resolver.ResolveNowOptions) {}

// Close ends following.
func (r *memberResolver) Close() { r.stop() }
