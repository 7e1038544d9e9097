package session

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/shoalproject/shoal/internal/run"
)

// Work that panics is told of, and the errand can be done again: it does not count as under way for ever.
func TestErrandAfterAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told error
		e := errand{failed: func(err error) { told = err }}
		e.start(t.Context(), func(context.Context) { panic("at once") })
		e.wait()
		if _, panicked := errors.AsType[*run.PanicError](told); !panicked {
			t.Errorf("told of %v", told)
		}
		done := false
		e.start(t.Context(), func(context.Context) { done = true })
		e.wait()
		if !done {
			t.Error("not done again")
		}
	})
}
