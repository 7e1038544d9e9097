// Package prune removes images that nobody uses when the disk that they are on runs full.
//
// It owns when that is and which go (Choose, which is pure). It must never remove an image that a container or a task uses, or
// one that was pulled or used within the last minutes. A Pruner is run by one goroutine.
package prune

import (
	"context"
	"log/slog"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/agent/internal/disk"
)

// pace is the time between two looks at the disk, which cost one system call.
const pace = time.Minute

// Runtime is where images are.
type Runtime interface {
	// Disk is the file system that they are on.
	Disk(ctx context.Context) (disk.Use, error)
	// Images are all that it has of ours. Those that a task names are used.
	Images(ctx context.Context, named []string) ([]Image, error)
	// RemoveImage removes one, and what no other image and no container needs of it.
	RemoveImage(ctx context.Context, name string) error
}

// Tasks are what is to run on this machine.
type Tasks interface {
	// Images are those that they name.
	Images(ctx context.Context) ([]string, error)
}

// Pruner looks after the disk.
type Pruner struct {
	Log     *slog.Logger
	Now     func() time.Time
	Rand    *run.Rand
	Marks   Marks
	Runtime Runtime
	Tasks   Tasks
	// Removed hears the size of each image that was removed; nil: nobody does.
	Removed func(bytes int64)
}

// Run looks from time to time, until ctx ends.
func (p *Pruner) Run(ctx context.Context) error {
	for {
		if err := run.Sleep(ctx, p.Rand.Jitter(pace, 0.2)); err != nil {
			return nil
		}
		if err := p.Look(ctx); err != nil && ctx.Err() == nil {
			p.Log.Warn("unused images were not removed, will retry", "error", err)
		}
	}
}

// Look removes what must go now.
func (p *Pruner) Look(ctx context.Context) error {
	room, err := p.Runtime.Disk(ctx)
	switch {
	case errs.Is(err, errs.NotFound):
		return nil // the runtime's files are where this process does not see them
	case err != nil:
		return err
	case !Pressed(room, p.Marks):
		return nil
	}
	named, err := p.Tasks.Images(ctx)
	if err != nil {
		return err
	}
	images, err := p.Runtime.Images(ctx, named)
	if err != nil {
		return err
	}
	going := Choose(images, room, p.Marks, p.Now())
	p.Log.Info("the disk of the images is full", "percent", room.Percent(), "images", len(images), "removes", len(going))
	for _, i := range going {
		if err := p.Runtime.RemoveImage(ctx, i.Name); err != nil {
			return err
		}
		if p.Removed != nil {
			p.Removed(i.Bytes)
		}
		p.Log.Info("an unused image was removed", "image", i.Name, "bytes", i.Bytes, "unused_since", i.Since)
	}
	return nil
}
