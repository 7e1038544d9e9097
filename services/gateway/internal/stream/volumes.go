package stream

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// volumes implements logs.v1.VolumeService: it asks the nodes what they have, and the store where the volumes of slots are.
type volumes struct {
	logsv1.UnimplementedVolumeServiceServer
	*Server
}

// maxVolumes bounds an answer.
const maxVolumes = 10_000

// ListVolumes implements VolumeService.
func (s volumes) ListVolumes(ctx context.Context, req *logsv1.ListVolumesRequest) (*logsv1.ListVolumesResponse, error) {
	all, err := s.all(ctx, req.GetNodes())
	if err != nil {
		return nil, err
	}
	all.Volumes, all.NextPageToken, err = pageOf(all.GetVolumes(), req.GetPageSize(), req.GetPageToken())
	return all, err
}

// all are the volumes of nodes, or of every one.
func (s volumes) all(ctx context.Context, refs []string) (*logsv1.ListVolumesResponse, error) {
	nodes, err := s.nodes(ctx)
	if err != nil {
		return nil, err
	}
	meant, err := chosen(nodes, refs)
	if err != nil {
		return nil, err
	}
	// Step 1: every node is asked, a few at a time.
	out := &logsv1.ListVolumesResponse{}
	for part := range slices.Chunk(meant, atOnce) {
		for i, a := range s.askAll(ctx, part) {
			n := part[i]
			if a.Err != nil {
				out.Missing = append(out.Missing, &logsv1.AbsentNode{NodeId: n.GetMeta().GetId(), Hostname: state.Hostname(n), Reason: words(a.Err)})
				continue
			}
			for _, v := range a.Value {
				out.Volumes = append(out.Volumes, &logsv1.ListedVolume{NodeId: n.GetMeta().GetId(), Hostname: state.Hostname(n), Volume: v})
			}
		}
		if len(out.GetVolumes()) > maxVolumes {
			return nil, errs.New(errs.Exhausted, "more than %d volumes; ask for some nodes", maxVolumes)
		}
	}
	// Step 2: the records, after the nodes: a slot has its record before a node makes its volume, so what a node has told of has
	// one, or was given up. The other way round one that is made in between would look given up.
	records, err := s.records(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range out.GetVolumes() {
		v.Record = taken(records, v.GetNodeId(), v.GetVolume())
	}
	// Step 3: records of which no node has told.
	for _, r := range records {
		i := slices.IndexFunc(nodes, func(n *typesv1.Node) bool { return n.GetMeta().GetId() == r.GetNodeId() })
		if i >= 0 && !slices.Contains(meant, nodes[i]) || i < 0 && len(refs) > 0 {
			continue
		}
		v := &logsv1.ListedVolume{NodeId: r.GetNodeId(), Record: r, Unseen: true,
			Volume: &logsv1.NodeVolume{Name: r.GetMeta().GetId(), Service: r.GetService(), Slot: r.GetSlot(), Incarnation: r.GetIncarnation()}}
		if i >= 0 {
			v.Hostname = state.Hostname(nodes[i])
		}
		out.Volumes = append(out.Volumes, v)
	}
	slices.SortFunc(out.GetVolumes(), func(a, b *logsv1.ListedVolume) int { return cmp.Compare(keyOf(a), keyOf(b)) })
	return out, nil
}

// taken is the record of a volume that a node has, which is taken out of the records.
func taken(records map[string]*typesv1.Volume, node string, v *logsv1.NodeVolume) *typesv1.Volume {
	r := records[v.GetName()]
	if r == nil || r.GetNodeId() != node || v.GetIncarnation() != "" && v.GetIncarnation() != r.GetIncarnation() {
		return nil
	}
	delete(records, v.GetName())
	return r
}

// CreateVolume implements VolumeService.
func (s volumes) CreateVolume(ctx context.Context, req *logsv1.CreateVolumeRequest) (*logsv1.CreateVolumeResponse, error) {
	nodes, err := s.nodes(ctx)
	if err != nil {
		return nil, err
	}
	if req.GetNode() == "" && len(nodes) != 1 {
		return nil, errs.Faults("create a volume", errs.Fault{Field: "node", Reason: "must be named: the cluster has more than one, and a volume is on one of them"})
	}
	if req.GetNode() != "" {
		if nodes, err = chosen(nodes, []string{req.GetNode()}); err != nil {
			return nil, err
		}
	}
	id := nodes[0].GetMeta().GetId()
	_, err = ask(ctx, s.Server, "CreateNodeVolume", &logsv1.CreateNodeVolumeRequest{Node: id, Name: req.GetName(), Labels: req.GetLabels()},
		&logsv1.CreateNodeVolumeResponse{})
	return &logsv1.CreateVolumeResponse{NodeId: id}, err
}

// RemoveVolume implements VolumeService.
func (s volumes) RemoveVolume(ctx context.Context, req *logsv1.RemoveVolumeRequest) (*logsv1.RemoveVolumeResponse, error) {
	// Step 1: which is meant.
	v, err := s.pick(ctx, req)
	if err != nil {
		return nil, err
	}
	name, node := v.GetVolume().GetName(), v.GetNodeId()
	out := &logsv1.RemoveVolumeResponse{NodeId: node}
	away := s.away(ctx, v)
	if away != nil && !(req.GetForce() && v.GetRecord() != nil) {
		return nil, errs.New(errs.Unavailable, "volume %s: %s; --force gives up what a slot has there", name, words(away))
	}
	// Step 2: first nobody is tied to it any more. The store refuses that while a task uses it, and a task that comes to the node from
	// now on has another incarnation.
	if v.GetRecord() != nil {
		if _, err := controlv1.NewSlotVolumeServiceClient(s.control).DeleteSlotVolume(ctx, &controlv1.DeleteSlotVolumeRequest{Volume: name}); err != nil {
			return nil, err
		}
	}
	if away != nil {
		out.Left = "what is in it stays on the node, which can't be asked"
		return out, nil
	}
	// Step 3: the data.
	_, err = ask(ctx, s.Server, "RemoveNodeVolume", &logsv1.RemoveNodeVolumeRequest{Node: node, Name: name}, &logsv1.RemoveNodeVolumeResponse{})
	if err != nil && v.GetUnseen() && errs.KindOf(err) == errs.NotFound {
		err = nil // there was only the record
	}
	return out, err
}

// pick is the volume that is meant: on the node that is named, or on the only one that has it, or the one that is a slot's. Who happens
// to answer must not decide it: a node that can't be asked may have one of the name, too.
func (s volumes) pick(ctx context.Context, req *logsv1.RemoveVolumeRequest) (*logsv1.ListedVolume, error) {
	var on []string
	if req.GetNode() != "" {
		on = []string{req.GetNode()}
	}
	all, err := s.all(ctx, on)
	if err != nil {
		return nil, err
	}
	of := slices.DeleteFunc(all.GetVolumes(), func(v *logsv1.ListedVolume) bool { return v.GetVolume().GetName() != req.GetName() })
	switch {
	case len(of) == 1 && of[0].GetRecord() == nil && len(all.GetMissing()) > 0:
		return nil, errs.Faults("remove a volume", errs.Fault{Field: "node", Reason: fmt.Sprintf(
			"must be named: %s has a volume %s, and %s, which can't be asked, may have one too", hosts(of), req.GetName(), absent(all.GetMissing()))})
	case len(of) == 1:
		return of[0], nil
	case len(of) > 1:
		return nil, errs.Faults("remove a volume", errs.Fault{Field: "node", Reason: "must be named: " + hosts(of) + " have a volume " + req.GetName()})
	case len(all.GetMissing()) > 0:
		return nil, errs.New(errs.Unavailable, "no node that can be asked has a volume %.150q; %s can't be", req.GetName(), absent(all.GetMissing()))
	}
	return nil, errs.New(errs.NotFound, "there is no volume %.150q", req.GetName())
}

// away says why a volume's node can't be asked; nothing if it can.
func (s volumes) away(ctx context.Context, v *logsv1.ListedVolume) error {
	if !v.GetUnseen() {
		return nil
	}
	if v.GetHostname() == "" {
		return errs.New(errs.Unavailable, "its node was removed from the cluster")
	}
	_, err := s.askOne(ctx, v.GetNodeId())
	return err
}
