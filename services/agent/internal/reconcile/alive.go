package reconcile

import "context"

// Alive waits until the loop of Run comes round. Before it has taken over what runs here, which takes as long as containerd
// is away, there is no loop to ask.
func (l *Loop) Alive(ctx context.Context) error {
	select {
	case <-l.adopted:
	default:
		return nil
	}
	round := make(chan struct{})
	l.post(ctx, func(context.Context) { close(round) })
	select {
	case <-round:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
