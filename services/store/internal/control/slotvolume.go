package control

import (
	"context"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/state"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/desk"
	"github.com/shoalproject/shoal/services/store/internal/listing"
)

type slotVolumes struct {
	controlv1.UnimplementedSlotVolumeServiceServer
	*API
}

// ListSlotVolumes implements SlotVolumeService.
func (s slotVolumes) ListSlotVolumes(ctx context.Context, req *controlv1.ListSlotVolumesRequest) (*controlv1.ListSlotVolumesResponse, error) {
	snap, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	var rows []listing.Row[*typesv1.Volume]
	for v := range snap.Volumes() {
		rows = append(rows, listing.Row[*typesv1.Volume]{Key: v.GetMeta().GetId(), Value: v})
	}
	cut, next, err := listing.Page("list volumes", rows, req.GetPageSize(), req.GetPageToken(), listing.SizeOf[*typesv1.Volume])
	return &controlv1.ListSlotVolumesResponse{Volumes: cut, NextPageToken: next}, err
}

// DeleteSlotVolume implements SlotVolumeService.
func (s slotVolumes) DeleteSlotVolume(ctx context.Context, req *controlv1.DeleteSlotVolumeRequest) (*controlv1.DeleteSlotVolumeResponse, error) {
	return onLeader(ctx, s.API, false,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.DeleteSlotVolumeResponse, error) {
			var was *typesv1.Volume
			_, err := s.admits.Commit(ctx, caller, s.newID(), func(d *desk.Desk) (*storev1.Transaction, error) {
				if was = d.Snap.Volume(req.GetVolume()); was == nil {
					return nil, errs.New(errs.NotFound, "no slot has a volume %s", req.GetVolume())
				}
				if err := volumeInUse(d.Snap, was); err != nil {
					return nil, err
				}
				return giveUp(was), nil
			})
			if err != nil {
				return nil, err
			}
			return &controlv1.DeleteSlotVolumeResponse{Volume: was}, nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.DeleteSlotVolumeResponse, error) {
			return controlv1.NewSlotVolumeServiceClient(conn).DeleteSlotVolume(ctx, req)
		})
}

// giveUp removes the record on condition that no other task was given the volume since: each writes to it.
func giveUp(v *typesv1.Volume) *storev1.Transaction {
	id := v.GetMeta().GetId()
	return &storev1.Transaction{
		Preconditions: []*storev1.Precondition{{Condition: &storev1.Precondition_Unchanged{
			Unchanged: &storev1.Unchanged{Kind: typesv1.Kind_KIND_VOLUME, Id: id, Revision: v.GetMeta().GetRevision()},
		}}},
		Deletes: []*storev1.Delete{{Kind: typesv1.Kind_KIND_VOLUME, Id: id}},
	}
}

// volumeInUse names the task that may write to it. What is on a node that is down a person may give up.
func volumeInUse(s *state.Snapshot, v *typesv1.Volume) error {
	node := s.Node(v.GetNodeId())
	if node == nil || node.GetStatus().GetState() == typesv1.NodeState_NODE_STATE_DOWN {
		return nil
	}
	for t := range s.TasksOfNode(v.GetNodeId()) {
		if state.Terminal(t.GetObserved().GetState()) {
			continue
		}
		for _, x := range t.GetDecided().GetVolumes() {
			if x.GetVolumeId() == v.GetMeta().GetId() && x.GetIncarnation() == v.GetIncarnation() {
				return errs.New(errs.Precondition, "volume %s is in use by task %s (%s)", v.GetMeta().GetId(),
					state.TaskName(s.Service(t.GetServiceId()), t), t.GetMeta().GetId())
			}
		}
	}
	return nil
}
