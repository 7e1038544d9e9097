package tables

import (
	"fmt"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// Elements are what is in the kernel's sets and maps now. It may be called beside everything else.
func (k *Kernel) Elements() (map[mesh.Slot]string, error) {
	conn, err := open()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	out := map[mesh.Slot]string{}
	return out, newFilter().maps.read(conn, out)
}
