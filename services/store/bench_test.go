package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/fsm"
	"github.com/shoalproject/shoal/services/store/internal/logstore"
	"github.com/shoalproject/shoal/services/store/internal/raftnode"
)

type noWires struct{}

func (noWires) Send([]raftnode.Outgoing)     {}
func (noWires) SetPeers([]*storev1.RaftPeer) {}

type noWatch struct{}

func (noWatch) Publish([]*storev1.Delta, *state.Snapshot) {}
func (noWatch) Reset(*state.Snapshot)                     {}

// BenchmarkCommit is commits of one new service each, through one voter, to a real disk with every commit synced.
func BenchmarkCommit(b *testing.B) {
	for _, callers := range []int{1, 32, 128} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { benchmarkCommit(b, callers) })
	}
}

func benchmarkCommit(b *testing.B, callers int) {
	w, err := fsm.ReadWriters()
	if err != nil {
		b.Fatal(err)
	}
	env := run.Machine("bench")
	log := slog.New(slog.DiscardHandler)
	node, err := raftnode.Start(raftnode.Config{
		Log: log, Storage: logstore.Disk{Dir: filepath.Join(b.TempDir(), "raft"), Log: log}, Writers: w,
		Transport: noWires{}, Sink: noWatch{}, Rand: env.Rand, Now: env.Now, Ticker: env.Ticker,
		SnapshotEntries: 10_000, KeepEntries: 2_000,
		First: &raftnode.First{Epoch: &typesv1.Epoch{Number: 1}, Transaction: &storev1.Transaction{}, Peer: &storev1.RaftPeer{MachineId: "m"}},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := run.Async(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, node.Run(ctx) })
	defer func() { cancel(); <-done }()
	for v, changed := node.Watch(); !v.Serves; v, changed = node.Watch() {
		<-changed
	}
	var next atomic.Int64
	b.ResetTimer()
	err = run.Each(ctx, callers, make([]struct{}, callers), func(ctx context.Context, _ struct{}) error {
		for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
			id := fmt.Sprint(i)
			out, err := node.Propose(ctx, &storev1.Transaction{
				RequestId: id, Caller: &storev1.Caller{Role: authzv1.Role_ROLE_OPERATOR, Name: "ann"},
				Puts: []*storev1.Put{{Create: true, Fields: []string{"spec"}, Object: state.Wrap(&typesv1.Service{
					Meta: &typesv1.Meta{Id: id},
					Spec: &typesv1.ServiceSpec{
						Annotations: &typesv1.Annotations{Name: "service-" + id},
						Task:        &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: "registry.test/micro:1.0.0", Env: []string{"A=b"}}},
					},
				})}},
			})
			if err != nil || out.GetRefusal() != 0 {
				return fmt.Errorf("commit %s: %v, %w", id, out, err)
			}
		}
		return nil
	})
	b.StopTimer()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
}
