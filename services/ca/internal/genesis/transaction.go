package genesis

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/ca/internal/issue"
	"github.com/shoalproject/shoal/services/ca/internal/token"
)

// Defaults of the cluster's settings.
const (
	historyLimit = 5
	grace        = 90 * 24 * time.Hour
	firstPort    = 30000
	lastPort     = 32767
)

// transaction is the store's first: revision 1 of the cluster, applied without a check of roles.
func (g *genesis) transaction(made *Made) (*storev1.Transaction, error) {
	cluster, err := g.clusterObject(made)
	if err != nil {
		return nil, err
	}
	tx := &storev1.Transaction{
		RequestId:   identity.NewID(g.env.Rand),
		Caller:      &storev1.Caller{Role: authzv1.Role_ROLE_CA, Name: g.plan.Machine},
		ClusterTime: timestamppb.New(g.env.Now()),
		Puts: []*storev1.Put{
			commit.Create(state.Wrap(cluster), "spec", "authority", "tokens", "data_path"),
			commit.Create(state.Wrap(g.node()), "spec", "identity"),
		},
	}
	for _, role := range g.plan.Roles {
		if m := g.members[role]; m != nil {
			tx.Puts = append(tx.Puts, commit.Create(state.Wrap(m), issue.MemberFields()...))
		}
	}
	for _, c := range g.issued {
		tx.Puts = append(tx.Puts, commit.Create(state.Wrap(c.Credential), "serial", "public_key_hash", "not_after"))
	}
	return tx, nil
}

func (g *genesis) clusterObject(made *Made) (*typesv1.Cluster, error) {
	authority, err := g.authority()
	if err != nil {
		return nil, err
	}
	tokens := &typesv1.JoinTokens{}
	if tokens.Worker, err = token.New(g.keys, typesv1.NodeRole_NODE_ROLE_WORKER, 1, g.env.Now()); err != nil {
		return nil, err
	}
	if tokens.Manager, err = token.New(g.keys, typesv1.NodeRole_NODE_ROLE_MANAGER, 1, g.env.Now()); err != nil {
		return nil, err
	}
	top := g.top.Certificate().Raw
	if made.Worker, err = token.Show(g.keys, typesv1.NodeRole_NODE_ROLE_WORKER, tokens, top); err != nil {
		return nil, err
	}
	if made.Manager, err = token.Show(g.keys, typesv1.NodeRole_NODE_ROLE_MANAGER, tokens, top); err != nil {
		return nil, err
	}
	return &typesv1.Cluster{
		Meta: &typesv1.Meta{Id: g.cluster},
		Spec: &typesv1.ClusterSpec{
			Annotations:      &typesv1.Annotations{Name: "default"},
			TaskHistoryLimit: historyLimit, FirstPort: firstPort, LastPort: lastPort, FeatureLevel: process.FeatureLevel,
			CertificateLife: durationpb.New(issue.DefaultLife), CertificateGrace: durationpb.New(grace),
		},
		Authority: authority, Tokens: tokens, DataPath: g.dataPath(),
	}, nil
}

// authority seals the root's key and wraps the keyset key to this machine's CA.
func (g *genesis) authority() (*typesv1.Authority, error) {
	key, err := g.top.KeyPEM()
	if err != nil {
		return nil, errs.New(errs.Internal, "bootstrap: encode the root key: %w", err)
	}
	sealed, err := g.keys.Seal(g.env.Rand, issue.RootPurpose, key)
	if err != nil {
		return nil, err
	}
	own := g.members[authzv1.Role_ROLE_CA]
	wrapped, err := g.keys.Wrap(own.GetMeta().GetId(), own.GetWrapKey())
	if err != nil {
		return nil, err
	}
	return &typesv1.Authority{Bundle: g.top.PEM(), RootKey: sealed, Keyset: []*typesv1.WrappedKey{wrapped}}, nil
}

func (g *genesis) node() *typesv1.Node {
	roles := slices.Clone(g.plan.Roles)
	slices.Sort(roles)
	return &typesv1.Node{
		Meta:     &typesv1.Meta{Id: g.plan.Machine},
		Spec:     &typesv1.NodeSpec{Role: typesv1.NodeRole_NODE_ROLE_MANAGER, Availability: typesv1.Availability_AVAILABILITY_ACTIVE},
		Identity: &typesv1.NodeIdentity{Hostname: g.plan.Hostname, Roles: roles},
	}
}

func (g *genesis) dataPath() *typesv1.DataPath {
	six := g.plan.MachineNetwork6
	if six == "" {
		six = g.uniqueLocal()
	}
	return &typesv1.DataPath{
		MachineNetwork: g.plan.MachineNetwork, MachineNetwork6: six,
		Port: g.plan.DataPathPort, NetworkPool: g.plan.NetworkPool,
	}
}

// uniqueLocal is a random unique local /48 (RFC 4193, 3.2).
func (g *genesis) uniqueLocal() string {
	var b [16]byte
	b[0] = 0xfd
	_, _ = g.env.Rand.Read(b[1:6]) // a *run.Rand never fails
	return netip.PrefixFrom(netip.AddrFrom16(b), 48).String()
}

// CheckRanges returns the faults of the ranges of the data path; six may be empty.
func CheckRanges(machine, six, pool string) error {
	var f errs.Collector
	m := checkRange(&f, "machine_network", machine, 22, false)
	p := checkRange(&f, "network_pool", pool, 23, false)
	if six != "" {
		checkRange(&f, "machine_network6", six, 48, true)
	}
	if m.IsValid() && p.IsValid() {
		f.Check(!m.Overlaps(p), "network_pool", "%s and machine_network %s overlap", p, m)
	}
	return f.Err("ranges")
}

// checkRange wants a prefix, masked, of at most that length.
func checkRange(f *errs.Collector, field, text string, longest int, six bool) netip.Prefix {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		f.Add(field, "%q is not a range as in 10.0.0.0/9", text)
	case p.Addr().Is6() != six:
		f.Add(field, "%s is of the other address family", p)
	case p != p.Masked():
		f.Add(field, "%s has bits beyond its prefix; did you mean %s?", p, p.Masked())
	case p.Bits() > longest || six && p.Bits() != longest:
		f.Add(field, "%s is too small: %s at least", p, fmt.Sprintf("a /%d", longest))
	default:
		return p
	}
	return netip.Prefix{}
}
