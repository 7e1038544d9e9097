package client

import (
	"context"
	"time"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
)

const (
	// lostPause is the wait before a call that was lost is made again.
	lostPause = 300 * time.Millisecond
	// lostTries is how often.
	lostTries = 3
)

// RemoveNode removes a machine. The gateway and the store that carry the call may be that machine's own, which lose their
// rights with it before they can answer: so a call that was lost is made again, by way of the next gateway, if ref is the
// machine's whole id and can't mean another one afterwards.
func (c *Client) RemoveNode(ctx context.Context, ref string, whole, force bool) error {
	for try := 0; ; try++ {
		_, err := c.Nodes.DeleteNode(ctx, &controlv1.DeleteNodeRequest{Node: ref, Force: force})
		switch {
		case try > 0 && errs.KindOf(err) == errs.NotFound:
			return nil // the call that was lost has done it
		case !whole || try == lostTries || errs.KindOf(err) != errs.Unavailable:
			return err
		}
		if run.Sleep(ctx, lostPause) != nil {
			return err
		}
	}
}
