package shards_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/shoalproject/shoal/services/meshproxy/internal/shards"
)

// TestMapIsWhatAPlainOneWouldBe: after any changes a Map has what a map copied whole each time has, those that it was made from
// have what they had, and what differs between two of them is what differs between their copies.
func TestMapIsWhatAPlainOneWouldBe(t *testing.T) {
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 1))
		all, plain := []shards.Map[int]{{}}, []map[string]int{{}}
		for range 40 {
			from := r.IntN(len(all))
			changed := map[string]int{}
			for range r.IntN(50) {
				changed[fmt.Sprint("id", r.IntN(600))] = r.IntN(4) // 0: taken away
			}
			next := maps.Clone(plain[from])
			maps.Copy(next, changed)
			maps.DeleteFunc(next, func(_ string, v int) bool { return v == 0 })
			all, plain = append(all, all[from].With(changed)), append(plain, next)
		}
		for i, m := range all {
			if got := maps.Collect(m.All()); !maps.Equal(got, plain[i]) || m.Len() != len(plain[i]) {
				t.Fatalf("seed %d, map %d has %d ids of %d: %v, want %v", seed, i, m.Len(), len(plain[i]), got, plain[i])
			}
			j := r.IntN(len(all))
			if got, want := slices.Sorted(m.Differing(all[j])), differing(plain[i], plain[j]); !slices.Equal(got, want) || m.Equal(all[j]) != (len(want) == 0) {
				t.Fatalf("seed %d, between %d and %d differ %v, want %v", seed, i, j, got, want)
			}
			for id := range plain[i] {
				if m.Get(id) != plain[i][id] {
					t.Fatalf("seed %d, map %d: %s is %d, want %d", seed, i, id, m.Get(id), plain[i][id])
				}
			}
			var inOrder []int
			for _, id := range slices.Sorted(maps.Keys(plain[i])) {
				inOrder = append(inOrder, plain[i][id])
			}
			if got := slices.Collect(m.InOrder()); !slices.Equal(got, inOrder) {
				t.Fatalf("seed %d, map %d in order is %v, want %v", seed, i, got, inOrder)
			}
		}
	}
}

func differing(a, b map[string]int) (out []string) {
	for id := range a {
		if a[id] != b[id] {
			out = append(out, id)
		}
	}
	for id := range b {
		if a[id] == 0 {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}
