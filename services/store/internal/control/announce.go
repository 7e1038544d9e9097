package control

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/desk"
)

// announceLife is how long an announcement holds. It is repeated at a third of it, and written that often too.
const announceLife = silentAfter

// gatewayWeight is a gateway's share of load, as every process's default.
const gatewayWeight = 10

// Bounds of an announcement: it comes from the exposed process, and every machine is told of it.
const (
	maxAddresses = 16
	maxAddress   = 253 + len(":65535")
	maxVersion   = 128
	maxStatus    = 4 << 10
)

// Announce implements MemberService. Nothing is written while nothing has changed.
func (s members) Announce(ctx context.Context, req *controlv1.AnnounceRequest) (*controlv1.AnnounceResponse, error) {
	var c errs.Collector
	c.Check(len(req.GetAddresses()) > 0, "addresses", "are missing")
	c.Check(len(req.GetAddresses()) <= maxAddresses, "addresses", "are %d, at most %d are allowed", len(req.GetAddresses()), maxAddresses)
	c.Check(len(req.GetVersion()) <= maxVersion, "version", "has %d bytes, at most %d are allowed", len(req.GetVersion()), maxVersion)
	size := proto.Size(req.GetStatus())
	c.Check(size <= maxStatus, "status", "has %d bytes, at most %d are allowed", size, maxStatus)
	for i, a := range req.GetAddresses()[:min(len(req.GetAddresses()), maxAddresses)] {
		if len(a) > maxAddress {
			c.Add(fmt.Sprintf("addresses[%d]", i), "has %d bytes, at most %d are allowed", len(a), maxAddress)
			continue
		}
		_, _, err := net.SplitHostPort(a)
		c.Check(err == nil, fmt.Sprintf("addresses[%d]", i), "%q must be host:port", a)
	}
	if err := c.Err("announce a gateway"); err != nil {
		return nil, err
	}
	return onLeader(ctx, s.API, true,
		func(ctx context.Context, caller rpc.Caller) (*controlv1.AnnounceResponse, error) {
			if err := s.announce(ctx, caller, req); err != nil {
				return nil, err
			}
			return &controlv1.AnnounceResponse{Life: durationpb.New(announceLife)}, nil
		},
		func(ctx context.Context, conn *grpc.ClientConn) (*controlv1.AnnounceResponse, error) {
			return controlv1.NewMemberServiceClient(conn).Announce(ctx, req)
		})
}

func (s members) announce(ctx context.Context, caller rpc.Caller, req *controlv1.AnnounceRequest) error {
	want := &typesv1.Member{
		Meta: &typesv1.Meta{Id: caller.Principal.Member()}, Role: authzv1.Role_ROLE_GATEWAY, MachineId: caller.Principal.Name,
		Addresses: req.GetAddresses(), Version: req.GetVersion(), FeatureLevel: req.GetFeatureLevel(), Weight: gatewayWeight,
		Status: req.GetStatus(),
	}
	if s.told(s.cfg.Node.View().Image.Snapshot().Member(want.GetMeta().GetId()), want) {
		return nil
	}
	_, err := s.admits.Commit(ctx, caller, s.newID(), func(d *desk.Desk) (*storev1.Transaction, error) {
		p := desk.Put(state.Wrap(want), announcedFields()...)
		p.Create = d.Snap.Member(want.GetMeta().GetId()) == nil
		return &storev1.Transaction{Puts: []*storev1.Put{p}}, nil
	})
	return err
}

func announcedFields() []string {
	return []string{"role", "machine_id", "addresses", "version", "feature_level", "weight", "status"}
}

// told reports whether the store has what a gateway says, and has heard it not long ago: then nothing is written.
func (s members) told(has, want *typesv1.Member) bool {
	if has == nil || s.cfg.Node.ClusterTime().Sub(has.GetMeta().GetUpdatedAt().AsTime()) > announceLife/4 {
		return false
	}
	same := proto.CloneOf(want)
	same.Meta, same.Hostname, same.Spec = has.GetMeta(), has.GetHostname(), has.GetSpec()
	return proto.Equal(same, has)
}
