package progress

import (
	"context"
	"fmt"
	"time"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

// Even returns when a request to even out a service's tasks has come to its end, and shows how far it is meanwhile. Errors:
// Precondition (a move failed), Conflict (somebody has made another request), NotFound (somebody removed the service), the
// context's end, Unavailable (the cluster does not answer for longer than it takes to choose a leader).
func (w *Watch) Even(ctx context.Context, service string, request uint64) error {
	w.screen = screen{out: w.Out, terminal: w.Terminal, said: map[slotKey]string{}}
	defer w.screen.end()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	lost := time.NewTimer(patience)
	defer lost.Stop()
	for {
		got, err := w.Services.GetService(ctx, &controlv1.GetServiceRequest{Service: service})
		switch {
		case err != nil && (ctx.Err() != nil || errs.KindOf(err) != errs.Unavailable):
			return endOf(ctx, err)
		case err != nil:
			w.screen.note("waiting for the cluster: " + err.Error())
		default:
			lost.Reset(patience)
			if over, err := w.evened(got.GetService(), request); over {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-lost.C:
			return fmt.Errorf("watch service %q: %w", service, err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// evened tells how far the request is, and whether that is its end.
func (w *Watch) evened(svc *typesv1.Service, request uint64) (over bool, err error) {
	st, name := svc.GetRebalanceStatus(), svc.GetSpec().GetAnnotations().GetName()
	if svc.GetSpec().GetRebalance().GetRequest() != request {
		return true, errs.New(errs.Conflict, "somebody has made another request")
	}
	if st.GetRequest() != request { // the scheduler has not begun yet
		return false, nil
	}
	w.screen.note(name + ": " + st.GetMessage())
	switch st.GetState() {
	case typesv1.RebalanceState_REBALANCE_STATE_COMPLETED:
		return true, nil
	case typesv1.RebalanceState_REBALANCE_STATE_FAILED:
		return true, errs.New(errs.Precondition, "%s", st.GetMessage())
	default:
		return false, nil
	}
}
