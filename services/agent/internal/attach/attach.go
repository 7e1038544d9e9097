// Package attach stands for containers that another tool runs, where the agent expects containers of its own: it makes and starts
// nothing, and sees when such a container has gone.
//
// It owns a small file for each of them, which ends with the machine's power, and finds containers of other tools in containerd. It must
// never change such a container, nor its network: that is package network's. Everything is safe for concurrent use for different ids.
package attach

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/reconcile"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

// lookEvery is the time between two looks whether a container is still there. Nobody tells when a namespace is unbound.
const lookEvery = time.Second

// unfinished ends the name of a file that is being written.
const unfinished = ".new"

// Places are the namespaces that were attached.
type Places interface {
	// Attached says whether one is still where it was found.
	Attached(id string) bool
}

// Runtime runs containers of our own by the executor that it has, and watches those of others.
type Runtime struct {
	reconcile.Executor
	folder string
	places Places
}

// Over keeps its files in the folder, which must not outlive the machine's power.
func Over(own reconcile.Executor, folder string, places Places) *Runtime {
	return &Runtime{Executor: own, folder: folder, places: places}
}

// Clear takes the folder away.
func Clear(folder string) error { return os.RemoveAll(folder) }

// guest is what is kept of a container.
type guest struct {
	Origin  container.Origin
	Started bool
}

func (r *Runtime) path(id string) string { return filepath.Join(r.folder, id) }

// load is nil for a container of our own.
func (r *Runtime) load(id string) (*guest, error) {
	raw, err := os.ReadFile(r.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // it is none of these
	}
	if err != nil {
		return nil, fmt.Errorf("read what is kept of an attached container: %w", err)
	}
	g := &guest{}
	if err := json.Unmarshal(raw, g); err != nil {
		return nil, fmt.Errorf("read what is kept of attached container %s: %w", id, err)
	}
	return g, nil
}

// save is whole or not at all.
func (r *Runtime) save(id string, g *guest) error {
	raw, err := json.Marshal(g)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.folder, 0o700); err != nil {
		return fmt.Errorf("make a place for attached containers: %w", err)
	}
	fresh := r.path(id) + unfinished
	if err := os.WriteFile(fresh, raw, 0o600); err != nil {
		return fmt.Errorf("keep an attached container: %w", err)
	}
	return os.Rename(fresh, r.path(id))
}

// List adds the attached ones to the executor's.
func (r *Runtime) List(ctx context.Context) ([]container.Found, error) {
	found, err := r.Executor.List(ctx)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(r.folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list attached containers: %w", err)
	}
	for _, e := range entries {
		if _, _, ok := container.TaskOf(e.Name()); !ok {
			continue // half written
		}
		g, err := r.load(e.Name())
		if err != nil {
			return nil, err
		}
		if g == nil {
			continue // forgotten meanwhile
		}
		f := container.Found{ID: e.Name(), Origin: g.Origin, Presence: task.Made}
		switch {
		case !r.places.Attached(f.ID):
			f.Presence, f.Exit = task.Ended, &task.Exit{}
		case g.Started:
			f.Presence = task.Running
		}
		found = append(found, f)
	}
	return found, nil
}

// Prepare notes one that the network has been given to.
func (r *Runtime) Prepare(ctx context.Context, c container.Spec) error {
	if c.Container.GetAttach() == nil {
		return r.Executor.Prepare(ctx, c)
	}
	return r.save(c.ID, &guest{Origin: c.Origin})
}

// Start says that it runs, which it does without us.
func (r *Runtime) Start(ctx context.Context, id string) (int64, error) {
	g, err := r.load(id)
	if err != nil {
		return 0, err
	}
	if g == nil {
		return r.Executor.Start(ctx, id)
	}
	if !r.places.Attached(id) {
		return 0, errs.New(errs.Precondition, "its network namespace is gone")
	}
	g.Started = true
	return 0, r.save(id, g)
}

// Wait blocks until it is gone: then it has ended well, for all that we know.
func (r *Runtime) Wait(ctx context.Context, id string) (task.Exit, error) {
	g, err := r.load(id)
	if err != nil {
		return task.Exit{}, err
	}
	if g == nil {
		return r.Executor.Wait(ctx, id)
	}
	for r.places.Attached(id) {
		if err := run.Sleep(ctx, lookEvery); err != nil {
			return task.Exit{}, err
		}
	}
	return task.Exit{}, nil
}

// Remove forgets it. It runs on.
func (r *Runtime) Remove(ctx context.Context, id string, stop container.Stop) (*task.Exit, error) {
	err := os.Remove(r.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return r.Executor.Remove(ctx, id, stop)
	}
	if err != nil {
		return nil, fmt.Errorf("forget an attached container: %w", err)
	}
	return nil, nil //nolint:nilnil // it has not ended, so there is no exit
}

// ImageProbe knows none of a container without an image.
func (r *Runtime) ImageProbe(ctx context.Context, image string) (*typesv1.Probe, error) {
	if image == "" {
		return nil, nil //nolint:nilnil // as the executor says it of an image without one
	}
	return r.Executor.ImageProbe(ctx, image)
}

// EndCommands finds none of people's in it.
func (r *Runtime) EndCommands(ctx context.Context, id string) error {
	if g, err := r.load(id); g != nil || err != nil {
		return err
	}
	return r.Executor.EndCommands(ctx, id)
}

// KeepOutput has none to keep.
func (r *Runtime) KeepOutput(ctx context.Context, id string) error {
	if g, err := r.load(id); g != nil || err != nil {
		return err
	}
	return r.Executor.KeepOutput(ctx, id)
}

// Sweep forgets those that nobody keeps, too.
func (r *Runtime) Sweep(ctx context.Context, keep func(id string) bool) error {
	entries, err := os.ReadDir(r.folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list attached containers: %w", err)
	}
	for _, e := range entries {
		if !keep(strings.TrimSuffix(e.Name(), unfinished)) {
			if err := os.Remove(r.path(e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("forget an attached container: %w", err)
			}
		}
	}
	return r.Executor.Sweep(ctx, keep)
}
