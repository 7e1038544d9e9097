package executor

import (
	"context"
	"errors"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc/status"

	"github.com/shoalproject/shoal/internal/errs"
)

// failure gives containerd's error our kinds. Nil stays nil.
func (e *Executor) failure(what string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		err = errgrpc.ToNative(err)
	}
	switch {
	case errdefs.IsUnavailable(err):
		return errs.New(errs.Unavailable, "%s: containerd does not answer at %s; is it running? %w", what, e.cfg.Socket, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errdefs.IsCanceled(err), errdefs.IsDeadlineExceeded(err):
		return errs.New(errs.Unavailable, "%s: %w", what, err)
	case errdefs.IsNotFound(err):
		return errs.New(errs.NotFound, "%s: %w", what, err)
	case errdefs.IsAlreadyExists(err):
		return errs.New(errs.Exists, "%s: %w", what, err)
	}
	return errs.New(errs.Internal, "%s: %w", what, err)
}

// pause waits, or returns the context's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
