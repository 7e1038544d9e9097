// Package pass has the machine's networks pass a firewall that lets nothing through which it does not know: dockerd sets the
// policy of iptables' chain FORWARD to drop, and what our own table accepts is then dropped there.
//
// It owns two rules at the end of that chain, known by their comment, and touches nothing else of it: what an administrator or
// Docker refuses by a rule of theirs stays refused, also by one that was added behind ours, which then move to the end again. Our
// table still says who may speak to whom. It sees a chain of
// iptables-nft, not one of iptables-legacy. One goroutine at a time may use a Part.
package pass

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

const (
	tableName = "filter"
	chainName = "FORWARD"
	comment   = "shoal"
	// ours begins the names of our links, as `shoal+` does in iptables.
	ours = "shoal"
)

// Health is told when a firewall is in the way.
type Health interface {
	Set(part string, ok bool, why string)
}

// Part follows the models of a machine.
type Part struct {
	env    run.Env
	health Health
	open   func() (int, error)
	model  *mesh.Model
	failed bool // the last look did
}

// New has looked at nothing yet.
func New(env run.Env, health Health) *Part { return &Part{env: env, health: health, open: Open} }

// Apply looks whether the rules are there, at the first model and when one comes again, which means a look. What it cannot do
// is told and holds up no version.
func (p *Part) Apply(_ context.Context, m *mesh.Model) error {
	look := p.model == nil || m == p.model
	p.model = m
	if !look {
		return nil
	}
	made, err := p.open()
	if err != nil {
		p.env.Log.Warn("another firewall may drop what our networks send, will retry", "error", err)
		if p.failed { // others change their rules all the time, and a look may fail over it: a person is to look at what stays
			p.health.Set("firewall", false, err.Error())
		}
		p.failed = true
		return nil
	}
	p.failed = false
	p.health.Set("firewall", true, "")
	if made > 0 {
		p.env.Log.Info("our networks pass the firewall whose policy is to drop", "chain", chainName, "rules", made)
	}
	return nil
}

// Forget has nothing to clear away.
func (p *Part) Forget() error { return nil }

func families() []nftables.TableFamily {
	return []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6}
}

// Open adds what is missing of our rules where the policy is to drop, at the end of the chain, and says how many.
func Open() (made int, err error) {
	err = each(func(conn *nftables.Conn, chain *nftables.Chain, all []*nftables.Rule) error {
		if chain.Policy == nil || *chain.Policy != nftables.ChainPolicyDrop || last(all) {
			return nil
		}
		for _, r := range known(all) { // half of them, or others' behind them: not as we made them
			if err := conn.DelRule(r); err != nil {
				return err
			}
		}
		for _, end := range ends() {
			conn.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: accept(end), UserData: userdata.AppendString(nil, userdata.TypeComment, comment)})
		}
		if err := conn.Flush(); err != nil {
			return err
		}
		made += len(ends())
		return nil
	})
	return made, err
}

// last says that our rules are there, once, and nothing comes after them.
func last(all []*nftables.Rule) bool {
	n := len(ends())
	return len(known(all)) == n && len(known(all[len(all)-n:])) == n
}

// Close removes our rules, whatever the policy is.
func Close() error {
	return each(func(conn *nftables.Conn, _ *nftables.Chain, all []*nftables.Rule) error {
		for _, r := range known(all) {
			if err := conn.DelRule(r); err != nil {
				return err
			}
		}
		return conn.Flush()
	})
}

// each looks at the chain of both families, where it is there, with its rules. What fails in one family does not stop the other.
func each(do func(*nftables.Conn, *nftables.Chain, []*nftables.Rule) error) error {
	var faults []error
	for _, family := range families() {
		conn, err := nftables.New()
		if err != nil {
			return fmt.Errorf("open nftables: %w", err)
		}
		chains, err := conn.ListChainsOfTableFamily(family)
		if err != nil {
			faults = append(faults, fmt.Errorf("list the chains of other firewalls: %w", err))
			continue
		}
		for _, c := range chains {
			if c.Table.Name != tableName || c.Name != chainName || c.Hooknum == nil {
				continue
			}
			all, err := conn.GetRules(c.Table, c)
			if err == nil {
				err = do(conn, c, all)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // somebody has taken the chain away meanwhile
				faults = append(faults, fmt.Errorf("rules of ours in the chain %s: %w", chainName, err))
			}
		}
	}
	return errors.Join(faults...)
}

// known are our rules among a chain's.
func known(all []*nftables.Rule) (out []*nftables.Rule) {
	for _, r := range all {
		if text, ok := userdata.GetString(r.UserData, userdata.TypeComment); ok && text == comment {
			out = append(out, r)
		}
	}
	return out
}

// ends are the two ways by which a packet is of our networks.
func ends() []expr.MetaKey { return []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} }

// accept is what iptables makes of `-i shoal+ -j ACCEPT`, so that it can list it.
func accept(end expr.MetaKey) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: end, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte(ours)},
		&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept},
	}
}
