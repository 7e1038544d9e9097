package executor

import (
	"context"
	"errors"
	"io"
	"os"

	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/tree"
)

// Get writes an archive of a path in a running container.
func (e *Executor) Get(ctx context.Context, id string, g *logsv1.CopyGet, found func(*logsv1.CopyStat) error, archive io.Writer) error {
	return e.inTree(ctx, id, func(t *tree.Tree) error { return t.Pack(ctx, g, found, archive) })
}

// Put unpacks an archive in a directory of a running container.
func (e *Executor) Put(ctx context.Context, id string, p *logsv1.CopyPut, archive io.Reader) (done *logsv1.CopyDone, err error) {
	err = e.inTree(ctx, id, func(t *tree.Tree) (err error) {
		done, err = t.Unpack(ctx, p, archive)
		return err
	})
	return done, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (e *Executor) inTree(ctx context.Context, id string, f func(*tree.Tree) error) error {
	call, cancel := e.call(ctx)
	pid, err := e.pidOf(call, id)
	cancel()
	if err != nil {
		return err
	}
	t, err := tree.Of(pid, container.Group(id))
	if err != nil {
		return err
	}
	return errors.Join(f(t), t.Close())
}
