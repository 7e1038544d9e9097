// Package constraint is the language in which a service says what a node must be: "node.labels.disk == ssd",
// "node.role != manager", "node.platform.arch in (amd64, arm64)", "node.labels.gpu exists".
//
// It owns the grammar and what each key means of a node. It is pure and keeps nothing: the store refuses with it what makes
// no sense, the scheduler places by it.
package constraint

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

type operator int

const (
	equal operator = iota
	notEqual
	in
	exists
)

// Prefixes of keys that are followed by a label's name.
const (
	NodeLabels   = "node.labels."
	EngineLabels = "engine.labels."
)

// Constraint is one condition on a node.
type Constraint struct {
	text     string
	key      string
	op       operator
	values   []string       // lower case
	prefixes []netip.Prefix // of node.ip
}

// String is the constraint as it was written.
func (c Constraint) String() string { return c.text }

// Parse reads one constraint. The error says what is wrong with it, and what would be right.
func Parse(text string) (Constraint, error) {
	c := Constraint{text: strings.TrimSpace(text)}
	rest, ok := c.operator()
	if !ok {
		return c, fmt.Errorf("%q has none of the forms KEY == VALUE, KEY != VALUE, KEY in (VALUE, …), KEY exists", text)
	}
	if err := ValidKey(c.key); err != nil {
		return c, err
	}
	if c.op == exists {
		return c, nil
	}
	for _, v := range strings.Split(rest, ",") {
		v = strings.ToLower(strings.TrimSpace(v))
		if v == "" || c.op != in && strings.ContainsAny(v, "=!") {
			return c, fmt.Errorf("%q does not say with what to compare %s", text, c.key)
		}
		c.values = append(c.values, v)
	}
	if c.op != in && len(c.values) > 1 {
		c.values = []string{strings.ToLower(strings.TrimSpace(rest))} // a value may have a comma
	}
	return c, c.normalize()
}

// operator finds the operator, sets key and op, and returns the values as they were written.
func (c *Constraint) operator() (rest string, ok bool) {
	if i := strings.IndexAny(c.text, "=!"); i >= 0 && i+1 < len(c.text) && c.text[i+1] == '=' {
		c.key, c.op = strings.TrimSpace(c.text[:i]), equal
		if c.text[i] == '!' {
			c.op = notEqual
		}
		return c.text[i+2:], true
	}
	key, rest, _ := strings.Cut(c.text, " ")
	rest = strings.TrimSpace(rest)
	c.key = key
	if rest == "exists" {
		c.op = exists
		return "", true
	}
	list, ok := strings.CutPrefix(rest, "in")
	list = strings.TrimSpace(list)
	if !ok || len(list) < 2 || list[0] != '(' || list[len(list)-1] != ')' {
		return "", false
	}
	c.op = in
	return list[1 : len(list)-1], true
}

// normalize brings the values into the form in which nodes tell theirs.
func (c *Constraint) normalize() error {
	for i, v := range c.values {
		switch c.key {
		case "node.platform.arch":
			c.values[i] = arch(v)
		case "node.role":
			if v != "manager" && v != "worker" {
				return fmt.Errorf("%q: a node is manager or worker, not %q", c.text, v)
			}
		case "node.ip":
			p, err := netip.ParsePrefix(v)
			if a, addrErr := netip.ParseAddr(v); addrErr == nil {
				p, err = netip.PrefixFrom(a, a.BitLen()), nil
			}
			if err != nil {
				return fmt.Errorf("%q: %q is no address and no CIDR", c.text, v)
			}
			c.prefixes = append(c.prefixes, p.Masked())
		}
	}
	return nil
}

// ValidKey says what is wrong with a key, nil if it is one of those that a node has.
func ValidKey(key string) error {
	if label, ok := cutLabels(key); ok {
		if label == "" {
			return fmt.Errorf("%q names no label", key)
		}
		return nil
	}
	if !slices.Contains(keys(), key) {
		if key == "" {
			return errors.New("no key is given")
		}
		return fmt.Errorf("unknown key %q; known are %s, %s*, %s*", key, strings.Join(keys(), ", "), NodeLabels, EngineLabels)
	}
	return nil
}

func keys() []string {
	return []string{"node.id", "node.hostname", "node.ip", "node.role", "node.platform.os", "node.platform.arch"}
}

func cutLabels(key string) (label string, ok bool) {
	if label, ok = strings.CutPrefix(key, NodeLabels); ok {
		return label, true
	}
	return strings.CutPrefix(key, EngineLabels)
}

// Match reports whether the node meets the constraint. Values compare without regard to case, names of labels with. A label
// that is not there differs from every value.
func (c Constraint) Match(n *typesv1.Node) bool {
	if c.key == "node.ip" {
		return c.matchIP(n)
	}
	value, there := Value(n, c.key)
	if c.key == "node.platform.arch" {
		value = arch(value)
	}
	is := slices.ContainsFunc(c.values, func(v string) bool { return strings.EqualFold(v, value) })
	switch c.op {
	case exists:
		return there
	case notEqual:
		return !is
	case equal, in:
	}
	return is
}

func (c Constraint) matchIP(n *typesv1.Node) bool {
	is := false
	for _, text := range n.GetStatus().GetAddresses() {
		a, err := netip.ParseAddr(text)
		is = is || err == nil && slices.ContainsFunc(c.prefixes, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
	}
	switch c.op {
	case exists:
		return len(n.GetStatus().GetAddresses()) > 0
	case notEqual:
		return !is
	case equal, in:
	}
	return is
}

// Value is what a node has under a key, node.ip apart: there may be several of them.
func Value(n *typesv1.Node, key string) (value string, there bool) {
	switch key {
	case "node.id":
		value = n.GetMeta().GetId()
	case "node.hostname":
		value = state.Hostname(n)
	case "node.role":
		value = "worker"
		if n.GetSpec().GetRole() == typesv1.NodeRole_NODE_ROLE_MANAGER {
			value = "manager"
		}
	case "node.platform.os":
		value = n.GetStatus().GetDescription().GetPlatform().GetOs()
	case "node.platform.arch":
		value = n.GetStatus().GetDescription().GetPlatform().GetArchitecture()
	default:
		if label, ok := strings.CutPrefix(key, NodeLabels); ok {
			value, there = n.GetSpec().GetAnnotations().GetLabels()[label]
		} else if label, ok := strings.CutPrefix(key, EngineLabels); ok {
			value, there = n.GetStatus().GetDescription().GetLabels()[label]
		}
		return value, there
	}
	return value, value != ""
}

// arch is the name of an architecture as images have it.
func arch(s string) string {
	switch strings.ToLower(s) {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	}
	return strings.ToLower(s)
}
