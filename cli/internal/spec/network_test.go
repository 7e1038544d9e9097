package spec_test

import (
	"slices"
	"testing"

	"github.com/shoalproject/shoal/cli/internal/spec"
)

// Addresses of a network are kept in the order of the slots, whichever family they are of.
func TestAddressesOfANetwork(t *testing.T) {
	f := flagsOf(t, (*spec.Flags).Create, "--name", "web", "--network", "name=front,ip=10.0.0.9,ip6=fd00::9,alias=db,ip=10.0.0.10")
	s, err := f.Spec("nginx", nil)
	if err != nil {
		t.Fatal(err)
	}
	a := s.GetTask().GetNetworks()[0]
	if a.GetTarget() != "front" || !slices.Equal(a.GetAddresses(), []string{"10.0.0.9", "10.0.0.10", "fd00::9"}) || !slices.Equal(a.GetAliases(), []string{"db"}) {
		t.Errorf("read %v", a)
	}
}
