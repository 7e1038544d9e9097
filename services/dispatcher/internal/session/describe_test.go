package session

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// TestOwnKeys: a machine tells keys of its own alone, and not many.
func TestOwnKeys(t *testing.T) {
	key := func(generation uint64, b byte) *typesv1.TunnelKey {
		return &typesv1.TunnelKey{Generation: generation, PublicKey: bytes.Repeat([]byte{b}, 32)}
	}
	says := func(keys ...*typesv1.TunnelKey) *typesv1.NodeDescription {
		return &typesv1.NodeDescription{Hostname: "w1", TunnelKeys: keys}
	}
	txn := state.Empty().Begin()
	for id, k := range map[string]*typesv1.TunnelKey{"w1": key(1, 1), "w2": key(1, 2)} {
		txn.Put(state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: id}, Status: &typesv1.NodeStatus{Description: says(k)}}))
	}
	snap := txn.Commit(state.Version{EpochNumber: 1, Revision: 1}, time.Unix(0, 0))
	short := &typesv1.TunnelKey{Generation: 9, PublicKey: []byte("short")}
	var many []*typesv1.TunnelKey
	for i := range 50 {
		many = append(many, key(uint64(50-i), byte(100+i)))
	}
	for name, tc := range map[string]struct {
		told []*typesv1.TunnelKey
		want []uint64
	}{
		"its own, and a new one": {[]*typesv1.TunnelKey{key(1, 1), key(2, 3)}, []uint64{1, 2}},
		"another machine's":      {[]*typesv1.TunnelKey{key(1, 1), key(2, 2)}, []uint64{1}},
		"what is no key":         {[]*typesv1.TunnelKey{key(1, 1), short}, []uint64{1}},
		"many":                   {many, []uint64{47, 48, 49, 50}},
		"none":                   {nil, nil},
	} {
		d := says(tc.told...)
		before := fmt.Sprint(d)
		got := ownKeys(snap, "w1", d)
		var generations []uint64
		for _, k := range got.GetTunnelKeys() {
			generations = append(generations, k.GetGeneration())
		}
		if !slices.Equal(generations, tc.want) || got.GetHostname() != "w1" {
			t.Errorf("%s: %d, want %d", name, generations, tc.want)
		}
		if fmt.Sprint(d) != before {
			t.Errorf("%s: what was said has changed", name)
		}
	}
}

// TestOwnAddresses: a machine tells addresses by which it may call others, each once, and not many.
func TestOwnAddresses(t *testing.T) {
	var many []string
	for i := range 7000 {
		many = append(many, fmt.Sprintf("10.1.%d.%d", i/250, i%250))
	}
	for name, tc := range map[string]struct{ told, want []string }{
		"of both families":     {[]string{"203.0.113.1", "2001:db8::1", "fd00::1"}, []string{"203.0.113.1", "2001:db8::1", "fd00::1"}},
		"for one link alone":   {[]string{"fe80::1%x", "2001:db8::1%x", "fe80::1", "169.254.1.1", "203.0.113.1"}, []string{"203.0.113.1"}},
		"of no other machine":  {[]string{"127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"}, nil},
		"no addresses":         {[]string{"", "host", "10.0.0.0/8", "203.0.113.1"}, []string{"203.0.113.1"}},
		"one, said many times": {[]string{"2001:db8::1", "2001:DB8:0::1", "203.0.113.1", "::ffff:203.0.113.1"}, []string{"2001:db8::1", "203.0.113.1"}},
		"many":                 {many, many[:16]},
		"none":                 {nil, nil},
	} {
		d := &typesv1.NodeDescription{Hostname: "w1", OwnAddresses: tc.told}
		before := fmt.Sprint(d)
		if got := ownAddresses(d); !slices.Equal(got.GetOwnAddresses(), tc.want) || got.GetHostname() != "w1" {
			t.Errorf("%s: %s, want %s", name, got.GetOwnAddresses(), tc.want)
		}
		if fmt.Sprint(d) != before {
			t.Errorf("%s: what was said has changed", name)
		}
	}
}
