package shelf

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

// many are volumes with long labels.
type many struct{ n, bytes int }

func (many) CreateVolume(context.Context, string, map[string]string) error { return nil }

func (many) RemoveVolume(context.Context, string) error { return nil }

func (m many) Volumes(context.Context) (out []*logsv1.NodeVolume, err error) {
	for i := range m.n {
		out = append(out, &logsv1.NodeVolume{Name: fmt.Sprint(i), Labels: map[string]string{"l": strings.Repeat("x", m.bytes)}})
	}
	return out, nil
}

type parts struct {
	grpc.ServerStreamingServer[logsv1.ListNodeVolumesResponse]
	ctx    context.Context
	t      *testing.T
	volume int
	count  int
}

func (p *parts) Context() context.Context { return p.ctx }

func (p *parts) Send(r *logsv1.ListNodeVolumesResponse) error {
	p.count++
	for _, v := range r.GetVolumes() {
		if v.GetName() != fmt.Sprint(p.volume) {
			p.t.Errorf("volume %s comes as number %d", v.GetName(), p.volume)
		}
		p.volume++
	}
	if n := proto.Size(r); n > 2<<20 {
		p.t.Errorf("a message of %d bytes", n)
	}
	return nil
}

// TestManyVolumes: however many volumes there are, no message is too large to be carried, all of them are told, and there is an end.
func TestManyVolumes(t *testing.T) {
	for _, c := range []struct {
		n, bytes, parts int
		want            errs.Kind
	}{{0, 0, 1, 0}, {3, 10, 1, 0}, {500, 16 << 10, 8, 0}, {2000, 16 << 10, 0, errs.Exhausted}, {10_001, 0, 0, errs.Exhausted}} {
		p := &parts{ctx: t.Context(), t: t}
		err := New(many{n: c.n, bytes: c.bytes}).ListNodeVolumes(&logsv1.ListNodeVolumesRequest{}, p)
		if errs.KindOf(err) != c.want && err != nil || (err == nil) != (c.want == 0) || err == nil && (p.volume != c.n || p.count < c.parts) {
			t.Errorf("%d volumes of %d bytes: %d parts with %d of them, %v", c.n, c.bytes, p.count, p.volume, err)
		}
	}
}
