package decide

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// failureWindow is how long a failure speaks against a node.
const failureWindow = 5 * time.Minute

// specKey names one version of a service's task spec.
type specKey struct {
	service string
	version uint64
}

// nodeInfo is a node with what is on it.
type nodeInfo struct {
	node     *typesv1.Node
	total    int            // tasks that are alive
	services map[string]int // of them, by service
	failures map[specKey]int
	cpus     int64 // reserved, also by tasks that are still stopping
	memory   int64
	full     bool // no address left in its blocks and no block left in the machine network
}

func newNodeInfo(n *typesv1.Node) *nodeInfo {
	return &nodeInfo{node: n, services: map[string]int{}, failures: map[specKey]int{}}
}

func (n *nodeInfo) id() string { return n.node.GetMeta().GetId() }

// name is what a person calls the node.
func (n *nodeInfo) name() string {
	if n == nil {
		return "a removed node"
	}
	return cmp.Or(state.Hostname(n.node), n.id())
}

func (n *nodeInfo) drains() bool {
	return n != nil && n.node.GetSpec().GetAvailability() == typesv1.Availability_AVAILABILITY_DRAIN
}

// runsContainers is false for a machine that only takes traffic.
func (n *nodeInfo) runsContainers() bool {
	roles := n.node.GetIdentity().GetRoles()
	return len(roles) == 0 || slices.Contains(roles, authzv1.Role_ROLE_AGENT)
}

// account adds a task to its node's figures, or takes it away.
func (w *work) account(t *typesv1.Task, sign int) {
	n := w.nodes[t.GetDecided().GetNodeId()]
	if n == nil || dead(t) {
		return
	}
	if wanted(t) {
		n.total += sign
		n.services[t.GetServiceId()] += sign
	}
	spec := state.SpecOf(w.old.Service(t.GetServiceId()), t.GetSpecVersion())
	n.cpus += int64(sign) * spec.GetResources().GetReservations().GetNanoCpus()
	n.memory += int64(sign) * spec.GetResources().GetReservations().GetMemoryBytes()
}

// noteFailure counts a task that ended by itself against its node. Since when is the time of its replacement.
func (w *work) noteFailure(t *typesv1.Task) {
	n := w.nodes[t.GetDecided().GetNodeId()]
	s := t.GetObserved().GetState()
	if n == nil || s != typesv1.TaskState_TASK_STATE_FAILED && s != typesv1.TaskState_TASK_STATE_REJECTED {
		return
	}
	if wanted(t) || w.now.Sub(timeOf(t.GetDecided().GetSince())) < failureWindow {
		n.failures[specKey{t.GetServiceId(), t.GetSpecVersion()}]++
	}
}

// giveBlocks gives each node that has none its blocks of the machine network.
func (w *work) giveBlocks() {
	for _, n := range w.order {
		if len(n.node.GetBlocks()) == 0 && !w.full() {
			w.addBlock(n)
		}
	}
}

// addBlock claims one more /24 for a node, and its /64 with the first. It reports whether there was one left.
func (w *work) addBlock(n *nodeInfo) bool {
	data := w.old.Cluster().GetDataPath()
	block, ok := w.freeBlock(data.GetMachineNetwork(), 24)
	if !ok {
		return false
	}
	next := proto.CloneOf(n.node)
	next.Blocks = append(next.Blocks, block)
	if len(n.node.GetBlocks()) == 0 {
		if block6, ok := w.freeBlock(data.GetMachineNetwork6(), 64); ok {
			next.Blocks = append(next.Blocks, block6)
		}
	}
	n.node = next
	w.put(state.Wrap(next)) // nobody else writes blocks, and a clash is a claim's: nothing to rest on
	return true
}

// freeBlock is the first block of that many bits in the range that nobody claims.
func (w *work) freeBlock(within string, bits int) (string, bool) {
	pool, err := netip.ParsePrefix(within)
	if err != nil || bits < pool.Bits() {
		return "", false
	}
	count := uint64(1) << min(bits-pool.Bits(), 20)
	for i := range count {
		block := nthBlock(pool.Masked(), bits, i).String()
		if _, taken := w.txn.ClaimHolder(state.BlockClaim(block)); !taken {
			return block, true
		}
	}
	return "", false
}

// nthBlock is the n-th block of that many bits in the pool.
func nthBlock(pool netip.Prefix, bits int, n uint64) netip.Prefix {
	if pool.Addr().Is4() {
		a := pool.Addr().As4()
		v := binary.BigEndian.Uint32(a[:]) + uint32(n)<<(32-bits)
		binary.BigEndian.PutUint32(a[:], v)
		return netip.PrefixFrom(netip.AddrFrom4(a), bits)
	}
	a := pool.Addr().As16()
	high := binary.BigEndian.Uint64(a[:8]) // blocks of at most 64 bits: only the upper half changes
	binary.BigEndian.PutUint64(a[:8], high+n<<(64-min(bits, 64)))
	return netip.PrefixFrom(netip.AddrFrom16(a), bits)
}
