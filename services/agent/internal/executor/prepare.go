package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/failpoint"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/kernel"
	"github.com/shoalproject/shoal/services/agent/internal/runtimespec"
)

// gcRoot keeps containerd's garbage collection away from a snapshot whose container is not made yet. So no lease is
// needed, which would be two more calls and two more writes to containerd's disk for each container.
const gcRoot = "containerd.io/gc.root"

// Prepare pulls the image if it is not there and makes the container, ready to start. What an earlier try or life of the
// agent left under the id is replaced. Errors: Unavailable (containerd is away), else what a person must mend, in the
// registry's or the runtime's words.
func (e *Executor) Prepare(ctx context.Context, c container.Spec) error {
	img, err := e.images.get(ctx, c.Container.GetImage(), c.Pull)
	if err != nil {
		return err
	}
	_ = failpoint.Hit("agent.pulled")
	err = e.make(ctx, c, img)
	if errs.Is(err, errs.NotFound) { // somebody removed the image's layers since we looked
		e.images.forget(img)
		if img, err = e.images.get(ctx, c.Container.GetImage(), c.Pull); err != nil {
			return err
		}
		err = e.make(ctx, c, img)
	}
	return err
}

func (e *Executor) make(ctx context.Context, c container.Spec, img *image) error {
	release, err := e.gate.Pass(ctx, c.Origin.Service)
	if err != nil {
		return err
	}
	defer release()
	ctx, cancel := e.call(ctx)
	defer cancel()
	err = e.create(ctx, c, img)
	if errs.Is(err, errs.Exists) {
		if _, err := e.erase(ctx, c.ID); err != nil {
			return err
		}
		err = e.create(ctx, c, img)
	}
	return err
}

func (e *Executor) create(ctx context.Context, c container.Spec, img *image) error {
	signal := c.Container.GetStopSignal()
	if signal == "" {
		signal = img.config.StopSignal
	}
	labels := labelsOf(c.Origin, c.Container.GetLabels(), signal)
	if c.IDs.Mapped() {
		labels[labelIDs] = strconv.FormatUint(uint64(c.IDs.First), 10)
	}
	volumeLabels(c, labels)
	users, err := openUsers(c)
	if err != nil {
		return err
	}
	defer users.Close()
	e.making.RLock() // from the making of its volumes to that of the container, nobody removes them
	defer e.making.RUnlock()
	if err := e.settle(c); err != nil {
		return err
	}
	// Step 1: the file system. The user's name is looked up in it.
	rootfs, err := e.client.SnapshotService(e.cfg.Snapshotter).Prepare(ctx, c.ID, img.chain, snapshots.WithLabels(map[string]string{
		gcRoot: time.Time{}.Format(time.RFC3339), labelCluster: c.Origin.Cluster, labelTask: c.Origin.Task,
	}))
	if err != nil {
		return e.failure("make the root file system", err)
	}
	_ = failpoint.Hit("agent.snapshot-made")
	// Step 2: what is mounted into it. A new volume takes what the image has at its place.
	c, sources, err := e.sources(c, img, rootfs, users)
	if err == nil {
		rootfs, err = e.settleOwners(ctx, c, rootfs, users)
	}
	if err != nil {
		return err
	}
	if c.Container.GetOpenStdin() && !c.Container.GetTty() { // a terminal is its own input, and stays open by itself
		for _, pipe := range append(e.pipes(c.ID), e.input(c.ID)) { // what says that they are there comes last
			if err := openPipe(pipe); err != nil {
				return err
			}
		}
	}
	// Step 3: the container, which refers to it.
	rec := containers.Container{
		ID: c.ID, Image: img.ref, Labels: labels, Snapshotter: e.cfg.Snapshotter, SnapshotKey: c.ID,
		Runtime: containers.RuntimeInfo{Name: runtimeName},
	}
	user, err := e.user(ctx, c, img, &rec)
	if err != nil {
		return err
	}
	machine := e.machine
	if wide(c.Container) {
		machine.Capabilities = kernel.Grantable(e.cfg.Socket)
	}
	if c.Container.GetInit() && kernel.Apart(e.cfg.Socket) {
		machine.Init = "" // the runtime would look for the agent's binary on the machine, where it is not
	}
	spec, err := runtimespec.Build(ctx, runtimespec.Input{Container: c, Image: img.ref, Config: img.config, User: user, Sources: sources}, machine)
	if err != nil {
		return err
	}
	if c.IDs.Mapped() {
		keepFlags(spec)
	}
	if rec.Spec, err = typeurl.MarshalAny(spec); err != nil {
		return fmt.Errorf("write the container's spec: %w", err)
	}
	if _, err := e.client.ContainerService().Create(ctx, rec); err != nil {
		return e.failure("make the container", err)
	}
	_ = failpoint.Hit("agent.container-made")
	e.keep(c.ID, prepared{rootfs, c.IDs, c.Origin.Service})
	return nil
}

// input is the pipe that a container reads from whose input is kept open. It goes with the container's other mounts.
func (e *Executor) input(id string) string { return filepath.Join(e.cfg.Pins, id, "stdin") }

// openPipe makes a pipe. Nobody writes to that of the input until somebody attaches: who reads waits, instead of finding the
// end.
func openPipe(pipe string) error {
	if err := os.MkdirAll(filepath.Dir(pipe), 0o700); err != nil {
		return fmt.Errorf("make a place for the container's pipes: %w", err)
	}
	if err := unix.Mkfifo(pipe, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make the container's pipes: %w", err)
	}
	return nil
}

// wide says whether a container asks for all capabilities that there are.
func wide(c *typesv1.ContainerSpec) bool {
	return c.GetPrivileges().GetPrivileged() || slices.Contains(c.GetCapabilityAdd(), "ALL")
}

// keep remembers a container for Start.
func (e *Executor) keep(id string, p prepared) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.prepared[id] = p
}

// serviceOf is that of a container which was made in this life of the agent; of others it is not known, and they share their turns.
func (e *Executor) serviceOf(id string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.prepared[id].service
}

func (e *Executor) unkeep(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.prepared, id)
}
