package book_test

import (
	"testing"
	"time"

	"github.com/shoalproject/shoal/services/scheduler/internal/decide/book"
)

// A deadline that had its turn in a plan that was full first is kept, also if the next decision is made at an earlier time: one that is
// woken decides at its deadline, and the snapshot after it may be older than that.
func TestDeadlineSurvivesAnEarlierTime(t *testing.T) {
	b := book.New()
	g := b.Group("web")
	at := time.Unix(1000, 0)
	b.Looked(g, book.Outcome{Wake: at})
	b.Turn(at).End() // full before its turn
	early := b.Turn(at.Add(-time.Second))
	if next := early.Next(); next != nil {
		t.Fatalf("%s has its turn before its time", next.ID)
	}
	early.End()
	if got := b.Wake(); !got.Equal(at) {
		t.Errorf("to be woken at %v, want %v", got, at)
	}
	if b.Turn(at).Next() != g {
		t.Error("its deadline is forgotten")
	}
}
