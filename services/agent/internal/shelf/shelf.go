// Package shelf answers calls about the named volumes of this machine.
//
// It owns the form of the answers and their bounds. Whether the caller may is decided before a call comes here (the dispatcher
// checks the person's rights). It must never remove a volume that a container uses: who does is the runtime's to know. A CSI
// driver's volumes would be listed here, beside those that the runtime keeps. Safe for concurrent use.
package shelf

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

const (
	// maxVolumes and maxBytes bound an answer, partBytes each of its messages.
	maxVolumes, maxBytes, partBytes = 10_000, 16 << 20, 1 << 20
	// maxLabels and maxLabelBytes bound what a person says of a volume.
	maxLabels, maxLabelBytes = 64, 16 << 10
)

// Volumes are those of the machine. Errors are told to a person.
type Volumes interface {
	// Volumes are the named ones, by name, with who uses them.
	Volumes(ctx context.Context) ([]*logsv1.NodeVolume, error)
	// CreateVolume makes an empty one, if it is not there.
	CreateVolume(ctx context.Context, name string, labels map[string]string) error
	// RemoveVolume removes one with all that is in it. Precondition: it is in use, by whom.
	RemoveVolume(ctx context.Context, name string) error
}

// Server implements logs.v1.NodeVolumeService.
type Server struct {
	logsv1.UnimplementedNodeVolumeServiceServer

	volumes Volumes
}

// New makes one.
func New(v Volumes) *Server { return &Server{volumes: v} }

// ListNodeVolumes implements NodeVolumeService.
func (s *Server) ListNodeVolumes(_ *logsv1.ListNodeVolumesRequest, stream grpc.ServerStreamingServer[logsv1.ListNodeVolumesResponse]) error {
	all, err := s.volumes.Volumes(stream.Context())
	if err != nil {
		return err
	}
	if len(all) > maxVolumes {
		return errs.New(errs.Exhausted, "the node has %d volumes, at most %d are listed", len(all), maxVolumes)
	}
	part, size, total := &logsv1.ListNodeVolumesResponse{}, 0, 0
	for _, v := range all {
		n := proto.Size(v)
		if total += n; total > maxBytes {
			return errs.New(errs.Exhausted, "what the node's %d volumes have of labels and users is more than %d bytes", len(all), maxBytes)
		}
		if size += n; size > partBytes && len(part.GetVolumes()) > 0 {
			if err := stream.Send(part); err != nil {
				return err
			}
			part, size = &logsv1.ListNodeVolumesResponse{}, n
		}
		part.Volumes = append(part.Volumes, v)
	}
	return stream.Send(part)
}

// CreateNodeVolume implements NodeVolumeService.
func (s *Server) CreateNodeVolume(req *logsv1.CreateNodeVolumeRequest, stream grpc.ServerStreamingServer[logsv1.CreateNodeVolumeResponse]) error {
	var c errs.Collector
	c.Check(state.ValidVolume(req.GetName()), "name", "%.150q is no name of a volume: letters and digits, with - _ . between them, at most %d",
		req.GetName(), state.MaxVolumeName)
	size := 0
	for k, v := range req.GetLabels() {
		size += len(k) + len(v)
		c.Check(k != "", "labels", "has a label without a name")
	}
	c.Check(len(req.GetLabels()) <= maxLabels && size <= maxLabelBytes, "labels", "has %d labels of %d bytes, at most %d of %d are allowed",
		len(req.GetLabels()), size, maxLabels, maxLabelBytes)
	if err := c.Err("create a volume"); err != nil {
		return err
	}
	if err := s.volumes.CreateVolume(stream.Context(), req.GetName(), req.GetLabels()); err != nil {
		return err
	}
	return stream.Send(&logsv1.CreateNodeVolumeResponse{})
}

// RemoveNodeVolume implements NodeVolumeService.
func (s *Server) RemoveNodeVolume(req *logsv1.RemoveNodeVolumeRequest, stream grpc.ServerStreamingServer[logsv1.RemoveNodeVolumeResponse]) error {
	if !state.ValidVolume(req.GetName()) { // it becomes a path
		return errs.New(errs.NotFound, "there is no volume %.150q on this node", req.GetName())
	}
	if err := s.volumes.RemoveVolume(stream.Context(), req.GetName()); err != nil {
		return err
	}
	return stream.Send(&logsv1.RemoveNodeVolumeResponse{})
}
