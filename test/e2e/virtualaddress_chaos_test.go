//go:build chaos

package e2e

import "testing"

// The same with a machine that is cut off for half a minute.
func TestVirtualAddressPartitioned(t *testing.T) { virtualAddress(t, true) }
