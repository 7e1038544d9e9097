// Package disk watches how full this machine's disks are, and what was removed because of it.
//
// It owns the metrics of disks, and when a change is worth telling the cluster: each time is a write to the store, so free room is
// told in twentieths of the disk. It must never remove anything. A Watch is run by one goroutine; what it knows may be read by anybody.
package disk

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	// pace is the time between two looks, which cost a system call each.
	pace = time.Minute
	// parts is into how many a disk is cut for telling.
	parts = 20
	// Full is how full a disk is, in percent, that a person must look at: what is written next may be lost.
	Full = 95
)

// Use is how large a file system is and what is free of it, in bytes.
type Use struct{ Total, Free int64 }

// Percent is how full it is.
func (u Use) Percent() int64 {
	if u.Total <= 0 {
		return 0
	}
	return (u.Total - u.Free) * 100 / u.Total
}

// Disk is one to look at. NotFound: it is not to be seen from here.
type Disk struct {
	Name string
	Look func(ctx context.Context) (Use, error)
}

// Watch looks at disks.
type Watch struct {
	log     *slog.Logger
	rand    *run.Rand
	disks   []Disk
	changed chan struct{}

	bytes, free     *prometheus.GaugeVec
	removed, gained prometheus.Counter

	mu        sync.Mutex // guards all below
	told      []*typesv1.DiskUse
	full      map[string]bool
	gone      uint64
	goneBytes int64
}

// New makes one, and its metrics.
func New(env run.Env, disks ...Disk) *Watch {
	w := &Watch{
		log: env.Log, rand: env.Rand, disks: disks, changed: make(chan struct{}, 1), full: map[string]bool{},
		bytes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "shoal_agent_disk_bytes", Help: "Size of a file system that the agent depends on.",
		}, []string{"disk"}),
		free: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "shoal_agent_disk_free_bytes", Help: "What is free of a file system that the agent depends on.",
		}, []string{"disk"}),
		removed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_agent_images_removed_total", Help: "Unused images that were removed because the disk ran full.",
		}),
		gained: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "shoal_agent_images_removed_bytes_total", Help: "Size of the images that were removed because the disk ran full.",
		}),
	}
	env.Metrics.MustRegister(w.bytes, w.free, w.removed, w.gained)
	return w
}

// Changed is sent to when there is something to tell the cluster.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Run looks from time to time, until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	for {
		w.Look(ctx)
		if run.Sleep(ctx, w.rand.Jitter(pace, 0.2)) != nil {
			return nil
		}
	}
}

// Look looks once.
func (w *Watch) Look(ctx context.Context) {
	var now []*typesv1.DiskUse
	for _, d := range w.disks {
		u, err := d.Look(ctx)
		if err != nil {
			if !errs.Is(err, errs.NotFound) && ctx.Err() == nil {
				w.log.Warn("a disk can't be looked at", "disk", d.Name, "error", err)
			}
			continue
		}
		w.bytes.WithLabelValues(d.Name).Set(float64(u.Total))
		w.free.WithLabelValues(d.Name).Set(float64(u.Free))
		now = append(now, &typesv1.DiskUse{Name: d.Name, Bytes: u.Total, FreeBytes: u.Free})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.judge(now)
	if !same(w.told, now) {
		w.told = now
		w.tell()
	}
}

// judge says once when a disk is as good as full, and once when it is not any more.
func (w *Watch) judge(now []*typesv1.DiskUse) {
	for _, d := range now {
		percent := Use{d.GetBytes(), d.GetFreeBytes()}.Percent()
		switch full := percent >= Full; {
		case full && !w.full[d.GetName()]:
			w.log.Error("a disk is full: pulls, logs and what containers write may fail", "disk", d.GetName(), "percent", percent, "free", d.GetFreeBytes())
		case !full && w.full[d.GetName()]:
			w.log.Info("a disk has room again", "disk", d.GetName(), "percent", percent)
		}
		w.full[d.GetName()] = percent >= Full
	}
}

// same says whether the cluster need not hear: no disk has come or gone, nor its room changed by a part.
func same(told, now []*typesv1.DiskUse) bool {
	if len(told) != len(now) {
		return false
	}
	for i, n := range now {
		t := told[i]
		moved := n.GetFreeBytes() - t.GetFreeBytes()
		if n.GetName() != t.GetName() || n.GetBytes() != t.GetBytes() || max(moved, -moved) >= n.GetBytes()/parts && n.GetBytes() > 0 {
			return false
		}
	}
	return true
}

// Removed notes an image that was removed.
func (w *Watch) Removed(bytes int64) {
	w.removed.Inc()
	w.gained.Add(float64(bytes))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone++
	w.goneBytes += bytes
	w.tell()
}

// Tell says that there is something to tell, of something beside the disks.
func (w *Watch) Tell() { w.tell() }

func (w *Watch) tell() {
	select {
	case w.changed <- struct{}{}:
	default: // somebody is to be told already
	}
}

// Describe puts into a description what the cluster is to know.
func (w *Watch) Describe(d *typesv1.NodeDescription) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.told {
		d.Disks = append(d.Disks, proto.CloneOf(t))
	}
	d.ImagesRemoved, d.ImagesRemovedBytes = w.gone, w.goneBytes
}
