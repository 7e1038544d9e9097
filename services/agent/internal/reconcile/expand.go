package reconcile

import (
	"fmt"
	"maps"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/placeholder"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// maxHostname is the kernel's limit.
const maxHostname = 64

// expand fills in what the spec could only say once the task has a node: hostname, environment, mounts. Invalid: what comes
// out is none.
func (l *Loop) expand(t *dispatcherv1.AssignedTask) (*typesv1.ContainerSpec, error) {
	c := proto.CloneOf(t.GetSpec().GetContainer())
	if c == nil {
		return &typesv1.ContainerSpec{}, nil
	}
	v := l.values(t)
	fields := map[string]*string{"hostname": &c.Hostname}
	for i := range c.GetEnv() {
		fields[fmt.Sprintf("env[%d]", i)] = &c.Env[i]
	}
	for i, m := range c.GetMounts() {
		fields[fmt.Sprintf("mounts[%d].source", i)] = &m.Source
		for key, text := range maps.Clone(m.GetVolume().GetLabels()) {
			value, err := placeholder.Expand(text, v)
			if err != nil {
				return nil, err
			}
			m.Volume.Labels[key] = value
		}
	}
	nameSlotVolumes(t, c)
	for field, text := range fields {
		value, err := placeholder.Expand(*text, v)
		if err != nil {
			return nil, errs.New(errs.Invalid, "%s: %w", field, err)
		}
		*text = value
	}
	if len(c.GetHostname()) > maxHostname {
		return nil, errs.New(errs.Invalid, "hostname: %q has %d characters, at most %d are allowed", c.GetHostname(), len(c.GetHostname()), maxHostname)
	}
	if c.GetHostname() == "" {
		c.Hostname = container.ShortID(t.GetTaskId())
	}
	return c, nil
}

func (l *Loop) values(t *dispatcherv1.AssignedTask) placeholder.Values {
	v := placeholder.Values{
		ServiceID: t.GetServiceId(), ServiceName: t.GetServiceName(), ServiceLabels: t.GetServiceLabels(), TaskID: t.GetTaskId(),
		NodeID: l.Node.ID, NodeHostname: l.Node.Hostname, NodeOS: l.Node.OS, NodeArch: l.Node.Architecture,
		TaskSlot: strconv.FormatUint(t.GetSlot(), 10),
	}
	if t.GetSlot() == 0 { // of a global service: its node is its identity
		v.TaskSlot = l.Node.ID
	}
	v.TaskName = v.ServiceName + "." + v.TaskSlot + "." + v.TaskID
	return v
}
