package session

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
)

// Payloads is where the data of secrets and configs comes from.
type Payloads interface {
	FetchPayload(ctx context.Context, in *storev1.FetchPayloadRequest, opts ...grpc.CallOption) (*storev1.FetchPayloadResponse, error)
}

const (
	payloadTimeout = 5 * time.Second
	payloadRetry   = 500 * time.Millisecond
)

// feed fetches what the tasks of a machine need of secrets and configs. It stands beside the sender, so that a store that is
// slow to answer holds up neither assignments nor acknowledgements. What was sent is forgotten when no task needs it any
// more, as the machine forgets it.
func (s *Server) feed(ctx context.Context, l *line) {
	for !s.feedOnce(ctx, l) {
		if run.Sleep(ctx, s.Env.Rand.Jitter(payloadRetry, 0.5)) != nil {
			return
		}
	}
}

// feedOnce is false if it should be tried again.
func (s *Server) feedOnce(ctx context.Context, l *line) (done bool) {
	for _, id := range l.box.missing() {
		data, err := s.fetch(ctx, l.node, id)
		switch {
		case err == nil:
			l.box.deliver(&dispatcherv1.Payload{Id: id, Data: data})
		case ctx.Err() != nil:
			return true
		case errs.KindOf(err) == errs.NotFound:
			// The task that needs it is about to go, or this replica is ahead: the next change asks again.
			s.Env.Log.Info("data of a secret or config is not there", "node", l.node, "payload", id)
		default:
			s.Env.Log.Warn("data of a secret or config was not fetched, will retry", "node", l.node, "payload", id, "error", err)
			return false
		}
	}
	return true
}

func (s *Server) fetch(ctx context.Context, node, id string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, payloadTimeout)
	defer cancel()
	resp, err := s.Payloads.FetchPayload(ctx, &storev1.FetchPayloadRequest{NodeId: node, Id: id})
	return resp.GetData(), err
}
