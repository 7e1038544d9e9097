package tables

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/layout"
)

const (
	tableName = "shoal"
	// userChain belongs to the administrator: it is made empty, called before our rules for forwarded traffic, and never
	// flushed or removed while the table lives.
	userChain = "SHOAL-USER"
	peers4    = "peers4"
	peers6    = "peers6"
	// batch bounds the elements in one message, whose attribute is at most 64 KiB.
	batch = 500
)

// filter is our table with its chains and sets, as objects to name them by.
type filter struct {
	table                      *nftables.Table
	raw, mark, dialled, dstnat *nftables.Chain
	input, forward             *nftables.Chain
	output, local, leave       *nftables.Chain
	here, choose4, choose6     *nftables.Chain // what is for this machine, and by which turn it is led on
	user, zones                *nftables.Chain
	sub
	peers4, peers6 *nftables.Set
	maps           mapped
}

// sub are the chains that others lead to, so that a packet is compared only with what may concern it: tunnels' packets, what comes from
// containers and which of it is from a known one, what they ask this machine, whose ports of ours are among it or among what is sent
// on, what the name server's address says, and what is sent from here before it is tracked (which has a hook of its own).
type sub struct{ tunnelled, contained, known, asked, own, peersOwn, answered, sent *nftables.Chain }

func (s sub) all() []*nftables.Chain {
	return []*nftables.Chain{s.tunnelled, s.contained, s.known, s.asked, s.own, s.peersOwn, s.answered, s.sent}
}

func newFilter() filter {
	f := filter{table: &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}}
	accept := nftables.ChainPolicyAccept
	base := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
		return &nftables.Chain{Name: name, Table: f.table, Type: kind, Hooknum: hook, Priority: prio, Policy: &accept}
	}
	f.raw = base("raw-prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	f.input = base("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	f.output = base("output", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter)
	f.forward = base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	f.leave = base("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	before := func(p *nftables.ChainPriority, by int32) *nftables.ChainPriority {
		return nftables.ChainPriorityRef(*p - nftables.ChainPriority(by))
	}
	f.mark = base("senders", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, before(nftables.ChainPriorityConntrack, -1))
	f.dialled = base("dialled", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, before(nftables.ChainPriorityNATDest, 2))
	f.dstnat = base("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, before(nftables.ChainPriorityNATDest, 1))
	f.local = base("local-output", nftables.ChainTypeNAT, nftables.ChainHookOutput, before(nftables.ChainPriorityNATDest, 1))
	f.zones = base("zones", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, before(nftables.ChainPriorityRaw, -1))
	f.sent = base("raw-output", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityRaw)
	for name, chain := range map[string]**nftables.Chain{
		"tunnelled": &f.tunnelled, "contained": &f.contained, "known": &f.known, "asked": &f.asked, "own": &f.own,
		"peers-own": &f.peersOwn, "answered": &f.answered,
	} {
		*chain = &nftables.Chain{Name: name, Table: f.table}
	}
	f.here = &nftables.Chain{Name: "here", Table: f.table}
	f.choose4, f.choose6 = &nftables.Chain{Name: "choose4", Table: f.table}, &nftables.Chain{Name: "choose6", Table: f.table}
	f.user = &nftables.Chain{Name: userChain, Table: f.table}
	f.peers4 = &nftables.Set{Table: f.table, Name: peers4, KeyType: nftables.TypeIPAddr}
	f.peers6 = &nftables.Set{Table: f.table, Name: peers6, KeyType: nftables.TypeIP6Addr}
	all, _ := layout.All()
	f.maps = newMaps(f.table, all)
	return f
}

// chains have our rules, but for that of the zones.
func (f filter) chains() []*nftables.Chain { return append(f.guards(), f.carriers()...) }

// guards are the chains that every machine has; carriers have published ports go by the kernel.
func (f filter) guards() []*nftables.Chain {
	return append([]*nftables.Chain{f.raw, f.dialled, f.input, f.output, f.forward, f.leave}, f.all()...)
}

func (f filter) carriers() []*nftables.Chain {
	return []*nftables.Chain{f.mark, f.dstnat, f.local, f.here, f.choose4, f.choose6}
}

func (f filter) choose(is4 bool) *nftables.Chain {
	if is4 {
		return f.choose4
	}
	return f.choose6
}

// buffer bounds a transaction: it goes to the kernel in one piece, and thousands of services are some megabytes. So do its
// acknowledgements come back.
const buffer = 64 << 20

// open makes a socket for transactions.
func open(options ...nftables.ConnOption) (*nftables.Conn, error) {
	return nftables.New(append(options, nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetWriteBuffer(buffer), c.SetReadBuffer(buffer))
	}))...)
}

// lasting is the socket for changes. It stays open: the kernel does not let one go before it has cleared away what was
// removed by it, which takes three times as long as the change.
func (k *Kernel) lasting() (*nftables.Conn, error) {
	if k.filter == nil {
		conn, err := open(nftables.AsLasting())
		if err != nil {
			return nil, err
		}
		k.filter = conn
	}
	return k.filter, nil
}

// drop closes it; the next change opens another.
func (k *Kernel) drop() {
	if k.filter != nil {
		_ = k.filter.CloseLasting() // nothing is to be heard from it any more
		k.filter = nil
	}
}

// applyFilter makes one transaction of all changes of rules, peers and elements.
func (k *Kernel) applyFilter(changes []kernel.Change) error {
	conn, err := k.lasting()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	if err := k.inOne(conn, changes); err != nil {
		k.drop() // what is queued in it belongs to a transaction that failed
		return err
	}
	return nil
}

func (k *Kernel) inOne(conn *nftables.Conn, changes []kernel.Change) error {
	f := newFilter()
	// Step 1: what the rest stands on, where it may be missing. All of it is left as it is where it is there.
	var rules *kernel.Rules
	for _, c := range changes {
		if c.Rules != nil {
			rules = c.Rules
		}
	}
	if rules != nil {
		if err := f.ground(conn, rules.Mesh); err != nil {
			return err
		}
	}
	// Step 2: the sets, by difference: with many machines they are large, and the rules stay.
	if err := f.changePeers(conn, changes); err != nil {
		return err
	}
	if err := f.maps.change(conn, changes); err != nil {
		return err
	}
	// Step 3: the rules, whole.
	if rules != nil {
		f.install(conn, *rules)
	}
	if err := k.Transact(conn.Flush); err != nil || rules == nil || !rules.Mesh {
		return err
	}
	return k.Transact(func() error { return f.installZones(rules.Digest()) })
}

// ground makes table, chains and sets. On a kernel that lacks what the mesh needs its share is left out.
func (f filter) ground(conn *nftables.Conn, mesh bool) error {
	conn.AddTable(f.table)
	for _, c := range append(f.guards(), f.user) {
		conn.AddChain(c)
	}
	if mesh {
		for _, c := range append(f.carriers(), f.zones) {
			conn.AddChain(c)
		}
	}
	for _, s := range []*nftables.Set{f.peers4, f.peers6} {
		if err := conn.AddSet(s, nil); err != nil {
			return err
		}
	}
	return f.maps.make(conn, mesh)
}

func (f filter) changePeers(conn *nftables.Conn, changes []kernel.Change) error {
	elements := map[*nftables.Set]map[kernel.Verb][]nftables.SetElement{f.peers4: {}, f.peers6: {}}
	for _, c := range changes {
		if !c.Peer.IsValid() {
			continue
		}
		set := f.peers4
		if c.Peer.Is6() {
			set = f.peers6
		}
		elements[set][c.Verb] = append(elements[set][c.Verb], nftables.SetElement{Key: c.Peer.AsSlice()})
	}
	for set, verbs := range elements {
		if err := inBatches(verbs[kernel.Add], func(e []nftables.SetElement) error { return conn.SetAddElements(set, e) }); err != nil {
			return err
		}
		if err := inBatches(verbs[kernel.Remove], func(e []nftables.SetElement) error { return conn.SetDeleteElements(set, e) }); err != nil {
			return err
		}
	}
	return nil
}

func inBatches(all []nftables.SetElement, f func([]nftables.SetElement) error) error {
	for len(all) > 0 {
		n := min(batch, len(all))
		if err := f(all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// install replaces our rules. Each carries a comment with the digest of what it was made from, its number and how many there
// are, so that reading back sees a rule that is missing, added or replaced.
func (f filter) install(conn *nftables.Conn, r kernel.Rules) {
	flushed := f.guards()
	if r.Mesh {
		flushed = f.chains()
	}
	for _, c := range flushed {
		conn.FlushChain(c)
	}
	rules := f.rules(r)
	order := map[string]int{}
	for i, c := range f.chains() {
		order[c.Name] = i
	}
	slices.SortStableFunc(rules, func(a, b *nftables.Rule) int { return order[a.Chain.Name] - order[b.Chain.Name] })
	for i, rule := range rules {
		rule.UserData = userdata.AppendString(nil, userdata.TypeComment, fmt.Sprintf("%s %d/%d", r.Digest(), i+1, len(rules)))
		conn.AddRule(rule)
	}
}

func (k *Kernel) readFilter(out *kernel.Kernel) error {
	conn, err := open()
	if err != nil {
		return err
	}
	f := newFilter()
	elements := map[kernel.Slot]string{}
	if out.Return, err = newTunnelSide().read(conn, elements); err != nil {
		return err
	}
	out.Entries = kernel.Entries{"kernel": kernel.NewPart(elements)}
	if _, err := conn.ListTableOfFamily(tableName, nftables.TableFamilyINet); err != nil {
		return ignoreAbsent(err)
	}
	if err := f.maps.read(conn, elements); err != nil {
		return err
	}
	for _, name := range []string{peers4, peers6} {
		set, err := conn.GetSetByName(f.table, name)
		if err != nil {
			if err := ignoreAbsent(err); err != nil {
				return err
			}
			continue
		}
		elements, err := conn.GetSetElements(set)
		if err != nil {
			return err
		}
		for _, e := range elements {
			if a, ok := netip.AddrFromSlice(e.Key); ok {
				out.Peers[a] = struct{}{}
			}
		}
	}
	rules, err := comments(f.table)
	if err != nil {
		return err
	}
	var all []string
	for _, c := range f.chains() {
		all = append(all, rules[c.Name]...)
	}
	if out.Rules.Mark = markOf(all); len(rules[f.mark.Name]) > 0 && markOf(rules[f.zones.Name]) != out.Rules.Mark {
		out.Rules.Mark = ""
	}
	// A turn whose chain has lost its rule, or has another's, is no turn.
	for slot, chain := range elements {
		if f.maps.layouts[slot.Set].Verdict && !slices.Equal(rules[chain], []string{chain}) {
			elements[slot] = changedTurn
		}
	}
	return nil
}

// markOf is the digest in the comments if they are those of a whole, untouched set of rules.
func markOf(comments []string) string {
	if len(comments) == 0 {
		return ""
	}
	digest, _, _ := strings.Cut(comments[0], " ")
	for i, c := range comments {
		if c != fmt.Sprintf("%s %d/%d", digest, i+1, len(comments)) {
			return ""
		}
	}
	return digest
}

// ignoreAbsent takes the errors of a table, chain or set that is not there: they are read as empty.
func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
