package agenttest

import (
	"context"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/task"
)

// shelve makes the named volumes of a container that are not there yet. It needs the host's lock.
func (h *Host) shelve(c container.Spec) {
	for _, m := range c.Container.GetMounts() {
		if name := m.GetSource(); named(m) && h.volumes[name] == nil {
			of := c.Volumes[name]
			h.volumes[name] = &logsv1.NodeVolume{Name: name, Labels: m.GetVolume().GetLabels(), CreatedAt: timestamppb.Now(),
				Path: "/hollow/" + name, Service: of.Service, Slot: of.Slot, Incarnation: of.Incarnation}
		}
	}
}

func named(m *typesv1.Mount) bool {
	return m.GetSource() != "" && (m.GetType() == typesv1.MountType_MOUNT_TYPE_UNSPECIFIED || m.GetType() == typesv1.MountType_MOUNT_TYPE_VOLUME)
}

// users need the host's lock.
func (h *Host) users(name string) (out []string) {
	for id, c := range h.containers {
		if c.presence == task.Ended {
			continue
		}
		for _, m := range c.Spec.GetMounts() {
			if named(m) && m.GetSource() == name {
				out = append(out, id)
			}
		}
	}
	slices.Sort(out)
	return out
}

// Volumes are those that containers have named, or people.
func (e *Executor) Volumes(context.Context) (out []*logsv1.NodeVolume, err error) {
	err = e.with(func() error {
		for _, name := range slices.Sorted(maps.Keys(e.host.volumes)) {
			v := e.host.volumes[name]
			out = append(out, &logsv1.NodeVolume{Name: name, Labels: v.GetLabels(), CreatedAt: v.GetCreatedAt(), Path: v.GetPath(), Service: v.GetService(),
				Slot: v.GetSlot(), Incarnation: v.GetIncarnation(), Users: e.host.users(name)})
		}
		return e.reach()
	})
	return out, err
}

// CreateVolume makes one.
func (e *Executor) CreateVolume(_ context.Context, name string, labels map[string]string) error {
	return e.with(func() error {
		if e.host.volumes[name] == nil {
			e.host.volumes[name] = &logsv1.NodeVolume{Name: name, Labels: labels, CreatedAt: timestamppb.Now(), Path: "/hollow/" + name}
		}
		return e.reach()
	})
}

// RemoveVolume removes one that nobody uses.
func (e *Executor) RemoveVolume(_ context.Context, name string) error {
	return e.with(func() error {
		if err := e.reach(); err != nil {
			return err
		}
		if u := e.host.users(name); len(u) > 0 {
			return errs.New(errs.Precondition, "volume %s is in use by %s", name, strings.Join(u, ", "))
		}
		if e.host.volumes[name] == nil {
			return errs.New(errs.NotFound, "there is no volume %q on this node", name)
		}
		delete(e.host.volumes, name)
		return nil
	})
}
