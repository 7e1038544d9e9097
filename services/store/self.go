package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/keyset/wrapper"
	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/payload"
	"github.com/shoalproject/shoal/services/store/internal/raftnode"
	"github.com/shoalproject/shoal/services/store/internal/raw"
	"github.com/shoalproject/shoal/services/store/internal/relay"
	"github.com/shoalproject/shoal/services/store/internal/transport"
)

// firstFile is the transaction that begins a cluster's history, made by the CA's bootstrap.
const firstFile = "first-transaction.pb"

// retry is the wait between tries to join or to announce.
const retry = time.Second

// first is what a store finds that begins a history.
type first struct {
	process *process.Process
	begins  *raftnode.First
}

// readFirst is nil without the file: then the store joins others, or has a log already.
func readFirst(p *process.Process) (*first, error) {
	raw, err := p.Env.Files.Read(p.Path(firstFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the first transaction: %w", err)
	}
	tx := &storev1.Transaction{}
	if err := proto.Unmarshal(raw, tx); err != nil {
		return nil, errs.New(errs.Invalid, "%s is no transaction: %w", p.Path(firstFile), err)
	}
	epoch := &typesv1.Epoch{Number: 1, Nonce: p.Env.Rand.Uint64()}
	for _, c := range tx.GetPreconditions() {
		if e := c.GetEpoch(); e != nil {
			epoch = e
		}
	}
	return &first{process: p, begins: &raftnode.First{
		Epoch: epoch, Transaction: tx,
		Peer: &storev1.RaftPeer{MachineId: p.ID.Name, Addresses: p.Addresses()},
	}}, nil
}

// forget removes the file. The node has started, so its content is in the log, durably; a log that is not empty never
// looks at it again.
func (f *first) forget(context.Context) error {
	if err := f.process.Env.Files.Remove(f.process.Path(firstFile)); err != nil {
		f.process.Env.Log.Warn("first transaction stays on disk", "error", err)
	}
	return nil
}

// self is this store among the others.
type self struct {
	process *process.Process
	node    *raftnode.Node
	wires   *transport.Transport
	commits *commit.Committer
	learner bool // it joins as one that stays one
}

func newSelf(p *process.Process, raws raw.Services, learner bool) *self {
	return &self{
		process: p, node: raws.Node, wires: raws.Transport, learner: learner,
		commits: commit.New(localCommit{p, raws}, p.Env.Rand),
	}
}

// Snapshot and Changed make self a process.View.
func (s *self) Snapshot() *state.Snapshot {
	if snap := s.node.View().Image.Snapshot(); snap != nil {
		return snap
	}
	return state.Empty()
}

// Changed is closed at the next change of anything.
func (s *self) Changed() <-chan struct{} {
	_, changed := s.node.Watch()
	return changed
}

// payloadKeys is where the key that seals secrets is kept, wrapped to each store that votes. The leader hands it over, and
// makes a new one when a store is removed. To a leader that lacks the newest, since it was made one before it was given it,
// another store hands it.
func (s *self) payloadKeys() wrapper.Place {
	return wrapper.Place{
		Of: (*typesv1.Cluster).GetPayloadKeys,
		Put: func(old *typesv1.Cluster, keys []*typesv1.WrappedKey) *storev1.Put {
			return commit.Put(state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: old.GetMeta().GetId()}, PayloadKeys: keys}), "payload_keys")
		},
		For: func(m *typesv1.Member) bool { return m.GetRaft().GetVoter() },
		May: func() bool {
			v := s.node.View()
			return v.Serves || keyless(v)
		},
		Begin: true,
		Sealed: func(snap *state.Snapshot, keyID string) bool {
			for p := range snap.Payloads() {
				if payload.SealedOf(p).GetKeyId() == keyID {
					return true
				}
			}
			return false
		},
	}
}

// keyless says that there is a payload key, and the leader has not been given the newest.
func keyless(v *raftnode.View) bool {
	snap := v.Image.Snapshot()
	if v.Leader == 0 || v.Leader == v.ID || snap == nil {
		return false
	}
	keys := snap.Cluster().GetPayloadKeys()
	leader := identity.ID{Role: authzv1.Role_ROLE_STORE, Name: v.Peer(v.Leader).GetMachineId()}.Member()
	return len(keys) > 0 && !slices.ContainsFunc(keys, func(k *typesv1.WrappedKey) bool {
		return k.GetMemberId() == leader && k.GetKeyId() == keys[len(keys)-1].GetKeyId()
	})
}

// announce keeps this store's Member: what every process says, then its place in Raft.
func (s *self) announce(ctx context.Context) error {
	// What a store reads from its own log at its start may be old: it would announce what it has announced already.
	for {
		if _, err := s.node.Linear(ctx); err == nil {
			break
		}
		if run.Sleep(ctx, retry) != nil {
			return nil
		}
	}
	g := run.NewGroup(s.process.Env.Log)
	g.Go("member", func(ctx context.Context) error { return s.process.Announce(ctx, s, s.commits) })
	g.Go("raft member", s.announceRaft)
	return g.Wait(ctx)
}

func (s *self) announceRaft(ctx context.Context) error {
	id := s.process.ID.Member()
	var written state.Version // of the last announcement, which a member that lags has not applied yet
	for {
		v, changed := s.node.Watch()
		want := &typesv1.RaftMember{Id: v.ID, Voter: v.Peer(v.ID).GetVoter(), Learner: v.Peer(v.ID).GetLearner()}
		snap := s.Snapshot()
		has := snap.Member(id)
		waits := written.SameEpoch(snap.Version()) && !snap.Version().Reaches(written)
		if has != nil && !waits && v.Peer(v.ID) != nil && !proto.Equal(has.GetRaft(), want) {
			put := commit.Put(state.Wrap(&typesv1.Member{Meta: &typesv1.Meta{Id: id}, Raft: want}), "raft")
			at, err := s.commits.Do(ctx, &storev1.Transaction{Puts: []*storev1.Put{put}})
			if err == nil {
				written = state.VersionOf(at)
				continue
			}
			s.process.Env.Log.Debug("raft member is not announced, trying again", "error", err)
			if run.Sleep(ctx, retry) != nil {
				return nil
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// join asks the others to take this store in, while it is not of the group at its present addresses.
func (s *self) join(ctx context.Context) error {
	for {
		v, changed := s.node.Watch()
		if p := v.Peer(v.ID); p == nil || !slices.Equal(p.GetAddresses(), s.process.Addresses()) {
			if err := s.askToJoin(ctx, v); err != nil && ctx.Err() == nil {
				s.process.Env.Log.Debug("not taken in yet, trying again", "error", err)
			}
			if run.Sleep(ctx, retry) != nil {
				return nil
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// askToJoin asks one store after another; each passes the call to the leader.
func (s *self) askToJoin(ctx context.Context, v *raftnode.View) error {
	if v.Serves { // the leader itself, at a new address
		peer := &storev1.RaftPeer{RaftId: v.ID, MachineId: s.process.ID.Name, Addresses: s.process.Addresses()}
		return s.node.Add(ctx, peer)
	}
	err := errs.New(errs.Unavailable, "no other store is known")
	for _, e := range s.process.Directory.Entries(authzv1.Role_ROLE_STORE) {
		if e.GetMachineId() == s.process.ID.Name {
			continue
		}
		for _, address := range e.GetAddresses() {
			if err = s.askOne(ctx, address, v.ID); err == nil || ctx.Err() != nil {
				return err
			}
		}
	}
	return err
}

func (s *self) askOne(ctx context.Context, address string, id uint64) error {
	conn, err := s.process.DialAddress(address, authzv1.Role_ROLE_STORE)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, relay.Timeout)
	defer cancel()
	resp, err := storev1.NewRaftServiceClient(conn).AddMember(ctx, &storev1.AddMemberRequest{
		RaftId: id, Addresses: s.process.Addresses(), Learner: s.learner,
	})
	if err != nil {
		return err
	}
	s.wires.Tell(resp.GetPeers())
	return nil
}

// health says what the store waits for.
func (s *self) health(ctx context.Context) error {
	h := s.process.Server.Health()
	for {
		v, changed := s.node.Watch()
		switch {
		case v.Peer(v.ID) == nil:
			h.Set("raft", false, "waiting for another store to take this one in")
		case v.Leader == 0:
			h.Set("raft", false, "waiting for a leader; make sure more than half of the managers are online")
		case s.Snapshot().Version().IsZero():
			h.Set("raft", false, "waiting for the state from the leader")
		default:
			h.Set("raft", true, "")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// localCommit commits through this store itself.
type localCommit struct {
	process *process.Process
	raws    raw.Services
}

func (l localCommit) Commit(ctx context.Context, in *storev1.CommitRequest, _ ...grpc.CallOption) (*storev1.CommitResponse, error) {
	return l.raws.Commit(callSelf(ctx, l.process), in)
}

// confirmed is where bookmarks come from.
type confirmed struct{ node *raftnode.Node }

func (c confirmed) Confirmed(ctx context.Context) (state.Version, time.Time, error) {
	image, err := c.node.Linear(ctx)
	if err != nil {
		return state.Version{}, time.Time{}, err
	}
	return image.Snapshot().Version(), c.node.ClusterTime(), nil
}

func observe(h prometheus.Histogram) func(time.Duration) {
	return func(d time.Duration) { h.Observe(d.Seconds()) }
}
