package tables

import (
	"fmt"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// Counts are how many connections the kernel has found by each element that counts, since it was added. It may be called
// beside everything else.
func (k *Kernel) Counts() (map[mesh.Slot]uint64, error) {
	conn, err := open()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	f := newFilter()
	there, err := conn.GetSets(f.table)
	if err := ignoreAbsent(err); err != nil {
		return nil, err
	}
	out := map[mesh.Slot]uint64{}
	for _, s := range there {
		l := f.maps.layouts[s.Name]
		if !l.counter {
			continue
		}
		elements, err := conn.GetSetElements(f.maps.sets[s.Name])
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", s.Name, err)
		}
		for _, e := range elements {
			if e.Counter != nil {
				out[mesh.Slot{Set: s.Name, Key: decodeAll(l.key, e.Key)}] = e.Counter.Packets
			}
		}
	}
	return out, nil
}
