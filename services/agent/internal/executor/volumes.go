package executor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/task"
	"github.com/shoalproject/shoal/services/agent/internal/volume"
)

// volumeLabels say which named volumes a container uses, one label each: together they may be longer than a label can be.
func volumeLabels(c container.Spec, labels map[string]string) {
	n := 0
	for _, m := range c.Container.GetMounts() {
		named := m.GetType() == typesv1.MountType_MOUNT_TYPE_UNSPECIFIED || m.GetType() == typesv1.MountType_MOUNT_TYPE_VOLUME
		if named && m.GetSource() != "" {
			labels[labelVolume+strconv.Itoa(n)] = m.GetSource()
			n++
		}
	}
	labels[labelName] = c.Log.Service
	if c.Origin.Slot > 0 {
		labels[labelName] = fmt.Sprintf("%s.%d", c.Log.Service, c.Origin.Slot)
	}
}

// users are the tasks that use named volumes: those whose containers have not ended.
func (e *Executor) users(ctx context.Context) (map[string][]string, error) {
	found, err := e.List(ctx)
	if err != nil {
		return nil, err
	}
	ended := map[string]bool{}
	for _, f := range found {
		ended[f.ID] = f.Presence == task.Ended
	}
	call, cancel := e.call(ctx)
	defer cancel()
	made, err := e.client.ContainerService().List(call, e.ours())
	if err != nil {
		return nil, e.failure("list containers", err)
	}
	users := map[string]map[string]struct{}{}
	for _, c := range made {
		if ended[c.ID] {
			continue
		}
		for k, name := range c.Labels {
			if strings.HasPrefix(k, labelVolume) {
				if users[name] == nil {
					users[name] = map[string]struct{}{}
				}
				users[name][c.Labels[labelName]] = struct{}{}
			}
		}
	}
	out := map[string][]string{}
	for name, of := range users {
		out[name] = slices.Sorted(maps.Keys(of))
	}
	return out, nil
}

// Volumes are the named volumes of this machine, with who uses them.
func (e *Executor) Volumes(ctx context.Context) ([]*logsv1.NodeVolume, error) {
	users, err := e.users(ctx)
	if err != nil {
		return nil, err
	}
	found, err := e.volumes.List()
	if err != nil {
		return nil, err
	}
	out := make([]*logsv1.NodeVolume, 0, len(found))
	for _, f := range found {
		out = append(out, &logsv1.NodeVolume{
			Name: f.Name, Labels: f.Labels, CreatedAt: timestamppb.New(f.Made), Path: f.Path, Service: f.Service, Slot: f.Slot,
			Incarnation: f.Incarnation, Users: users[f.Name],
		})
	}
	return out, nil
}

// CreateVolume makes an empty volume, if it is not there.
func (e *Executor) CreateVolume(_ context.Context, name string, labels map[string]string) error {
	_, err := e.volumes.Named(name, volume.About{Labels: labels}, nil)
	return err
}

// RemoveVolume removes a volume that no container uses.
func (e *Executor) RemoveVolume(ctx context.Context, name string) error {
	remove, err := e.detachVolume(ctx, name)
	if err != nil {
		return err
	}
	return remove()
}

// detachVolume takes a volume away that no container uses. No container is made meanwhile: it would be given what is about to go.
// Deleting what is in it may take minutes, and holds nobody up.
func (e *Executor) detachVolume(ctx context.Context, name string) (remove func() error, err error) {
	e.making.Lock()
	defer e.making.Unlock()
	users, err := e.users(ctx)
	if err != nil {
		return nil, err
	}
	if u := users[name]; len(u) > 0 {
		return nil, errs.New(errs.Precondition, "volume %s is in use by %s", name, strings.Join(u, ", "))
	}
	return e.volumes.Detach(name)
}
