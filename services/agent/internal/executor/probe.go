package executor

import (
	"context"
	"encoding/json"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"google.golang.org/protobuf/types/known/durationpb"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// ImageProbe is the health check that an image brings; nil: none. NotFound: the image is not here. It is never pulled for
// that: a container of it runs already.
func (e *Executor) ImageProbe(ctx context.Context, name string) (*typesv1.Probe, error) {
	ref, err := normalize(name)
	if err != nil {
		return nil, err
	}
	e.images.mu.Lock()
	known := e.images.known[ref]
	e.images.mu.Unlock()
	if known != nil {
		return known.health, nil
	}
	ctx, cancel := e.call(ctx)
	defer cancel()
	local, err := e.client.GetImage(ctx, ref)
	if err != nil {
		return nil, e.failure("look for the image", err)
	}
	probe, err := imageProbe(ctx, local)
	return probe, e.failure("read the image", err)
}

// dockerConfig is what Docker's images say beyond the OCI's.
type dockerConfig struct {
	Config struct {
		Healthcheck *struct {
			Test                                          []string
			Interval, Timeout, StartPeriod, StartInterval time.Duration
			Retries                                       uint32
		}
	} `json:"config"`
}

func imageProbe(ctx context.Context, i containerd.Image) (*typesv1.Probe, error) {
	desc, err := i.Config(ctx)
	if err != nil {
		return nil, err
	}
	data, err := content.ReadBlob(ctx, i.ContentStore(), desc)
	if err != nil {
		return nil, err
	}
	var c dockerConfig
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, err
	}
	h := c.Config.Healthcheck
	if h == nil || len(h.Test) == 0 {
		return nil, nil //nolint:nilnil // it brings none
	}
	return &typesv1.Probe{
		Test: h.Test, Interval: durationpb.New(h.Interval), Timeout: durationpb.New(h.Timeout), Retries: h.Retries,
		StartPeriod: durationpb.New(h.StartPeriod), StartInterval: durationpb.New(h.StartInterval),
	}, nil
}
