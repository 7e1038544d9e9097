// Package announce keeps a gateway in the directory. A gateway holds no right to write to the store itself, so it asks the
// control API.
package announce

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/run"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
)

const (
	retry   = time.Second
	timeout = 5 * time.Second
)

// Client is the part of the control API that it uses.
type Client interface {
	Announce(ctx context.Context, in *controlv1.AnnounceRequest, opts ...grpc.CallOption) (*controlv1.AnnounceResponse, error)
}

// Announcer repeats the announcement at a third of its life, and every second while the gateway is drained: people wait to
// hear that it is done.
type Announcer struct {
	process *process.Process
	client  Client
}

// New makes one.
func New(p *process.Process, client Client) *Announcer { return &Announcer{process: p, client: client} }

// Run announces until ctx ends.
func (a *Announcer) Run(ctx context.Context) error {
	for {
		drain, well := a.process.Drain.Changed(), a.process.Server.Health().Changed()
		wait := retry
		life, err := a.once(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			a.process.Env.Log.Warn("not announced, trying again", "error", err)
		case !a.process.Drain.Wanted():
			wait = max(life/3, retry)
		}
		timer := time.NewTimer(wait)
		select {
		case <-drain:
		case <-well: // told at once, but not more often than tries are made
			if run.Sleep(ctx, retry) != nil {
				timer.Stop()
				return nil
			}
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

func (a *Announcer) once(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	resp, err := a.client.Announce(ctx, &controlv1.AnnounceRequest{
		Addresses: a.process.Addresses(), Version: run.Version(), FeatureLevel: process.FeatureLevel,
		Status: a.process.Status(),
	})
	return resp.GetLife().AsDuration(), err
}
