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

// RemoveNode removes a machine; a call that was lost is made again if ref is the machine's whole id and can't mean another
// one afterwards.
func (c *Client) RemoveNode(ctx context.Context, ref string, whole, force bool) error {
	return remove(ctx, whole, func() error {
		_, err := c.Nodes.DeleteNode(ctx, &controlv1.DeleteNodeRequest{Node: ref, Force: force})
		return err
	})
}

// RemoveMember removes a process. A name that had one meaning has none afterwards, so a call that was lost is made again.
func (c *Client) RemoveMember(ctx context.Context, name string, force bool) error {
	return remove(ctx, true, func() error {
		_, err := c.Members.DeleteMember(ctx, &controlv1.DeleteMemberRequest{Member: name, Force: force})
		return err
	})
}

// remove makes a call that may be lost with its success: the gateway and the store that carry it may be what is removed, and
// lose their rights before they can answer. The next try goes by way of others.
func remove(ctx context.Context, again bool, call func() error) error {
	for try := 0; ; try++ {
		err := call()
		switch {
		case try > 0 && errs.KindOf(err) == errs.NotFound:
			return nil // the call that was lost has done it
		case !again || try == lostTries || errs.KindOf(err) != errs.Unavailable:
			return err
		}
		if run.Sleep(ctx, lostPause) != nil {
			return err
		}
	}
}
