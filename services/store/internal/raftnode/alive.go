package raftnode

import "context"

// Alive waits until the loop of Run comes round, whether or not there is a leader.
func (n *Node) Alive(ctx context.Context) error { return n.call(ctx, func() {}) }
