package client

import (
	"slices"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
)

// Gateways are the addresses to try from now on, of those that were known and the members that are gateways. Known ones keep
// their place: the person may have put the nearest first. They go when no such member is there any more. Drained ones come
// last: they are tried when no other answers, and may be back at work by then.
func Gateways(known []string, members []*controlv1.ListedMember) []string {
	var open, drained []string
	for _, l := range members {
		if m := l.GetMember(); m.GetSpec().GetDrain() {
			drained = append(drained, m.GetAddresses()...)
		} else {
			open = append(open, m.GetAddresses()...)
		}
	}
	next := slices.DeleteFunc(slices.Clone(known), func(g string) bool {
		full, err := Addresses([]string{g})
		return err == nil && len(open) > 0 && !slices.Contains(open, full[0])
	})
	for _, g := range slices.Concat(open, drained) {
		if !slices.Contains(next, g) {
			next = append(next, g)
		}
	}
	return next
}
