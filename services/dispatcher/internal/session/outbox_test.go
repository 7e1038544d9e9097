package session

import (
	"slices"
	"testing"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
)

// A machine forgets data with the assignment that has no task for it. When the next one needs it again it is sent again, also
// when nobody has looked between the two, and data that was fetched for a task that has gone is not sent for nobody.
func TestDataIsForgottenWithTheAssignment(t *testing.T) {
	b := newOutbox()
	b.require([]string{"s.1"})
	b.deliver(&dispatcherv1.Payload{Id: "s.1"})
	if b.takePayload() == nil || len(b.missing()) != 0 {
		t.Error("it was not sent")
	}
	b.require(nil)
	b.require([]string{"s.1"})
	if got := b.missing(); !slices.Equal(got, []string{"s.1"}) {
		t.Errorf("missing: %q", got)
	}
	b.deliver(&dispatcherv1.Payload{Id: "s.1"})
	b.require([]string{"c.1"})
	b.deliver(&dispatcherv1.Payload{Id: "s.1"})
	if p := b.takePayload(); p != nil {
		t.Errorf("sent for nobody: %s", p.GetId())
	}
}
