// Package turn says how one of a published port's tasks is chosen for a new connection, in words and numbers that the kernel keeps.
//
// It is pure, and keeps nothing.
package turn

import (
	"fmt"
	"strconv"
	"strings"
)

// A Turn says how one of a port's tasks is chosen for a new connection: among how many, and by which counter, or by the
// client's address. Ports with equal turns share a chain, so that a task which comes or goes changes elements of maps and
// rarely a rule: the kernel checks all rules again when one is added, but not for an element.
type Turn struct {
	size    uint16
	counter uint16 // which of the counters; 0: the client's address decides
}

// counters bounds how many ports of the same number of tasks have a counter of their own. Ports that share one still
// spread their connections evenly, unless both are asked in lockstep.
const counters = 64

// Of is the turn of a port with so many tasks.
func Of(port uint16, size int, affinity bool) Turn {
	t := Turn{size: uint16(min(size, 1<<16-1))}
	if !affinity {
		t.counter = 1 + port%counters
	}
	return t
}

// String is the turn's number in the kernel: what ports lead to, and turns lead from.
func (t Turn) String() string { return fmt.Sprintf("%#08x", uint32(t.counter)<<16|uint32(t.size)) }

// Chain is the name of the chain that takes a turn.
func (t Turn) Chain(is4 bool) string {
	family := "6"
	if is4 {
		family = "4"
	}
	return fmt.Sprintf("turn%s-%d-%d", family, t.size, t.counter)
}

// Parse reads the name of a turn's chain.
func Parse(chain string) (is4 bool, size, counter uint32, ok bool) {
	family, rest, ok := strings.Cut(strings.TrimPrefix(chain, "turn"), "-")
	a, b, more := strings.Cut(rest, "-")
	n, errN := strconv.ParseUint(a, 10, 16)
	c, errC := strconv.ParseUint(b, 10, 16)
	ok = ok && more && errN == nil && errC == nil && n > 0 && (family == "4" || family == "6") && strings.HasPrefix(chain, "turn")
	return family == "4", uint32(n), uint32(c), ok
}
