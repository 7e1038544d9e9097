package stream

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// atOnce is how many nodes are asked at once.
const atOnce = 64

// nodes are those that run containers.
func (s *Server) nodes(ctx context.Context) (out []*typesv1.Node, err error) {
	for token := ""; ; {
		r, err := controlv1.NewNodeServiceClient(s.control).ListNodes(ctx, &controlv1.ListNodesRequest{PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, l := range r.GetNodes() {
			if roles := l.GetNode().GetIdentity().GetRoles(); len(roles) == 0 || slices.Contains(roles, authzv1.Role_ROLE_AGENT) {
				out = append(out, l.GetNode())
			}
		}
		if token = r.GetNextPageToken(); token == "" {
			return out, nil
		}
	}
}

// records are where the volumes of slots are, by name.
func (s *Server) records(ctx context.Context) (map[string]*typesv1.Volume, error) {
	out := map[string]*typesv1.Volume{}
	for token := ""; ; {
		r, err := controlv1.NewSlotVolumeServiceClient(s.control).ListSlotVolumes(ctx, &controlv1.ListSlotVolumesRequest{PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, v := range r.GetVolumes() {
			out[v.GetMeta().GetId()] = v
		}
		if token = r.GetNextPageToken(); token == "" {
			return out, nil
		}
	}
}

// chosen are the nodes that refs name, by id or by a hostname that one alone has; all if there is none.
func chosen(nodes []*typesv1.Node, refs []string) (out []*typesv1.Node, err error) {
	if len(refs) == 0 {
		return nodes, nil
	}
	for _, ref := range refs {
		var named []*typesv1.Node
		for _, n := range nodes {
			if n.GetMeta().GetId() == ref {
				named = []*typesv1.Node{n}
				break
			}
			if state.Hostname(n) == ref {
				named = append(named, n)
			}
		}
		switch len(named) {
		case 0:
			return nil, errs.New(errs.NotFound, "no such node: %.100s", ref)
		case 1:
			out = append(out, named[0])
		default:
			return nil, errs.New(errs.Invalid, "node %s is ambiguous: %d machines have that hostname; use the id", ref, len(named))
		}
	}
	return out, nil
}

// askAll asks nodes for their volumes, all at once.
func (s *Server) askAll(ctx context.Context, nodes []*typesv1.Node) []run.Result[[]*logsv1.NodeVolume] {
	var waiting []<-chan run.Result[[]*logsv1.NodeVolume]
	for _, n := range nodes {
		waiting = append(waiting, run.Async(ctx, func(ctx context.Context) ([]*logsv1.NodeVolume, error) { return s.askOne(ctx, n.GetMeta().GetId()) }))
	}
	out := make([]run.Result[[]*logsv1.NodeVolume], 0, len(nodes))
	for _, w := range waiting {
		out = append(out, <-w)
	}
	return out
}

func (s *Server) askOne(ctx context.Context, node string) ([]*logsv1.NodeVolume, error) {
	r, err := ask(ctx, s, "ListNodeVolumes", &logsv1.ListNodeVolumesRequest{Node: node}, &logsv1.ListNodeVolumesResponse{})
	return r.GetVolumes(), err
}

// ask asks the agent of a node once. It gives up when it does not answer.
func ask[R proto.Message](ctx context.Context, s *Server, name string, req proto.Message, into R) (R, error) {
	ctx, err := s.as(ctx)
	if err != nil {
		return into, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, answerLimit, errs.New(errs.Unavailable, "it has not answered within %s", answerLimit))
	defer cancel()
	of := logsv1.NodeVolumeService_ServiceDesc
	i := slices.IndexFunc(of.Streams, func(d grpc.StreamDesc) bool { return d.StreamName == name })
	m, err := describe(of.ServiceName, of.Streams[i])
	if err != nil {
		return into, err
	}
	down, answer, err := s.find(ctx, m, req)
	if err == nil {
		err = gather(into, answer, func() (proto.Message, error) {
			next := m.out.New().Interface()
			return next, down.RecvMsg(next)
		})
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return into, err
}

// maxAnswer bounds what an agent answers in all parts, in bytes: more than it may.
const maxAnswer = 20 << 20

// gather puts the parts of an answer together: lists of the next go behind those of the one before.
func gather(into, first proto.Message, more func() (proto.Message, error)) error {
	for part, size := first, 0; ; {
		if size += proto.Size(part); size > maxAnswer {
			return errs.New(errs.Exhausted, "its answer has more than %d bytes", maxAnswer)
		}
		proto.Merge(into, part)
		var err error
		if part, err = more(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// words are an error's, without what only programs need.
func words(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func hosts(list []*logsv1.ListedVolume) string {
	var names []string
	for _, v := range list {
		names = append(names, v.GetHostname())
	}
	return strings.Join(names, ", ")
}

func absent(list []*logsv1.AbsentNode) string {
	var names []string
	for _, n := range list {
		names = append(names, n.GetHostname())
	}
	return strings.Join(names, ", ")
}
