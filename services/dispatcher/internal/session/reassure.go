package session

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
)

// reassureEach is how often a machine that waits for its welcome hears that it is not forgotten: well within its patience.
const reassureEach = time.Second

// reassure has a machine that waits for its welcome hear now and then that this dispatcher lives, until stop is called. In a
// stampede its turn may come late; if it went away to come again, that would be one handshake and one commit more, and those
// spent on it so far for nothing. It hears nothing while the store confirms nothing: another dispatcher may do better then.
func (s *Server) reassure(ctx context.Context, l *line) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	run.Beside(ctx, func(ctx context.Context) error {
		for run.Sleep(ctx, reassureEach) == nil {
			select {
			case <-s.View.Confirmed():
			case <-ctx.Done():
				return nil
			}
			// It counts as a sign of life with machines of any version.
			if err := l.stream.Send(&dispatcherv1.SessionResponse{Message: &dispatcherv1.SessionResponse_HeartbeatAck{
				HeartbeatAck: &dispatcherv1.HeartbeatAck{},
			}}); err != nil {
				return err
			}
		}
		return nil
	}, func(err error) {
		defer close(ended)
		if _, panicked := errors.AsType[*run.PanicError](err); panicked { // what else there is the session's reader meets too
			l.end(s.blame(l, err))
		}
	})
	return sync.OnceFunc(func() { cancel(); <-ended })
}
