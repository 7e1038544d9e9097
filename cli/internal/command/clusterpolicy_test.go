package command_test

import (
	"context"

	"google.golang.org/protobuf/proto"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// GetCluster returns the settings.
func (f *cluster) GetCluster(context.Context, *controlv1.GetClusterRequest) (*controlv1.GetClusterResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &controlv1.GetClusterResponse{Cluster: &typesv1.Cluster{Spec: proto.CloneOf(f.settings)}}, nil
}

// UpdateCluster keeps the settings.
func (f *cluster) UpdateCluster(_ context.Context, r *controlv1.UpdateClusterRequest) (*controlv1.UpdateClusterResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settings = proto.CloneOf(r.GetSpec())
	return &controlv1.UpdateClusterResponse{Cluster: &typesv1.Cluster{Spec: f.settings}}, nil
}
