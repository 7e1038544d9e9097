package meshproxy

import (
	"context"
	"errors"

	"github.com/shoalproject/shoal/services/meshproxy/internal/pass"
	"github.com/shoalproject/shoal/services/meshproxy/internal/quota"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables"
	"github.com/shoalproject/shoal/services/meshproxy/internal/voice"
)

// Reset removes from the kernel all that a meshproxy of this network namespace has made, and nothing else. The meshproxy
// must not run.
func Reset(ctx context.Context) error {
	kernel, err := tables.New()
	if err != nil {
		return err
	}
	defer kernel.Close()
	return errors.Join(kernel.Reset(ctx), pass.Close(), quota.Close(), voice.Close())
}
