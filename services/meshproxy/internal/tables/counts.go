package tables

import (
	"fmt"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
)

// Counts are how many connections the kernel has found by each element that counts, since it was added. It may be called
// beside everything else.
func (k *Kernel) Counts() (map[kernel.Slot]uint64, error) {
	conn, err := open()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	f := newFilter()
	there, err := conn.GetSets(f.table)
	if err := ignoreAbsent(err); err != nil {
		return nil, err
	}
	out := map[kernel.Slot]uint64{}
	for _, s := range there {
		l := f.maps.layouts[s.Name]
		if !l.Counter {
			continue
		}
		elements, err := conn.GetSetElements(f.maps.sets[s.Name])
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", s.Name, err)
		}
		for _, e := range elements {
			if e.Counter != nil {
				out[kernel.Slot{Set: s.Name, Key: l.Key(e)}] = e.Counter.Packets
			}
		}
	}
	return out, nil
}
