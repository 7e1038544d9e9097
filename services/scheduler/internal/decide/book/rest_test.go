package book_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
)

// Two tasks had an address one after the other, and the first is forgotten last: the address rests since the second has given it back.
func TestAddressRestsSinceItsLastTask(t *testing.T) {
	at := time.Unix(1000, 0)
	task := func(a string) *typesv1.Task {
		return &typesv1.Task{Decided: &typesv1.TaskDecided{Addresses: []*typesv1.TaskAddress{{NetworkId: "front", Addresses: []string{a}}}}}
	}
	n := &typesv1.Network{Meta: &typesv1.Meta{Id: "front"}, Resting: []*typesv1.RestingAddress{
		{Address: "10.0.0.3", Since: timestamppb.New(at.Add(time.Minute))},
		{Address: "10.0.0.2", Since: timestamppb.New(at.Add(3 * time.Minute))},
	}}
	now := at.Add(4 * time.Minute)
	if got := book.GiveBack(n, task("10.0.0.2/28"), at, now); got != nil {
		t.Errorf("%v, want nothing to have changed", got.GetResting())
	}
	got := book.GiveBack(n, task("10.0.0.3/28"), at.Add(2*time.Minute), now).GetResting()
	if len(got) != 2 || got[0].GetAddress() != "10.0.0.3" || !got[0].GetSince().AsTime().Equal(at.Add(2*time.Minute)) {
		t.Errorf("%v, want 10.0.0.3 to rest since 2 minutes", got)
	}
}
