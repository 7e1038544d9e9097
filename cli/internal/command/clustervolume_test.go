package command_test

import (
	"context"
	"slices"

	"github.com/shoalproject/shoal/internal/errs"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// volumesOf are the volumes of two machines, of which the second, m2, has gone silent.
type volumesOf struct {
	logsv1.UnimplementedVolumeServiceServer
	*cluster
}

// shelf is what the machines have: db.1.data is used, db.2.data is on the machine that is silent, old.1.data is of a service that
// is gone, and what was given up has left something.
func shelf() []*logsv1.ListedVolume {
	of := func(service string, slot uint64, name string, users ...string) *logsv1.ListedVolume {
		return &logsv1.ListedVolume{NodeId: "m1", Hostname: "m1", Record: &typesv1.Volume{Meta: &typesv1.Meta{Id: name}},
			Volume: &logsv1.NodeVolume{Name: name, Service: service, Slot: slot, Users: users, Path: "/var/lib/shoal/agent/volumes/named/" + name + "/data"}}
	}
	away, left := of("db", 2, "db.2.data"), of("db", 2, "db.2.data.given-up-k3x9k3x9")
	away.NodeId, away.Hostname, away.Unseen = "m2", "m2", true
	left.Record = nil
	return []*logsv1.ListedVolume{of("db", 1, "db.1.data", "db.1"), away, left, of("old", 1, "old.1.data")}
}

func (f volumesOf) ListVolumes(context.Context, *logsv1.ListVolumesRequest) (*logsv1.ListVolumesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &logsv1.ListVolumesResponse{Volumes: f.volumes, Missing: []*logsv1.AbsentNode{{NodeId: "m2", Hostname: "m2", Reason: "node m2 is down"}}}, nil
}

func (f volumesOf) CreateVolume(_ context.Context, req *logsv1.CreateVolumeRequest) (*logsv1.CreateVolumeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.volumes = append(f.volumes, &logsv1.ListedVolume{NodeId: req.GetNode(), Hostname: req.GetNode(), Volume: &logsv1.NodeVolume{Name: req.GetName(), Labels: req.GetLabels()}})
	return &logsv1.CreateVolumeResponse{NodeId: req.GetNode()}, nil
}

func (f volumesOf) RemoveVolume(_ context.Context, req *logsv1.RemoveVolumeRequest) (*logsv1.RemoveVolumeResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.volumes, func(v *logsv1.ListedVolume) bool { return v.GetVolume().GetName() == req.GetName() })
	switch {
	case i < 0:
		return nil, errs.New(errs.NotFound, "there is no volume %q", req.GetName())
	case len(f.volumes[i].GetVolume().GetUsers()) > 0:
		return nil, errs.New(errs.Precondition, "volume %s is in use by task db.1", req.GetName())
	case f.volumes[i].GetUnseen() && !req.GetForce():
		return nil, errs.New(errs.Unavailable, "volume %s: node m2 is down; --force gives up what a slot has there", req.GetName())
	}
	resp := &logsv1.RemoveVolumeResponse{}
	if f.volumes[i].GetUnseen() {
		resp.Left = "what is in it stays on the node, which can't be asked"
	}
	f.volumes = slices.Delete(f.volumes, i, i+1)
	return resp, nil
}
