package errs_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalproject/shoal/internal/errs"
)

// How a carried call ended crosses whole: kind, text and faults.
func TestAnErrorIsTheSameAfterItWasEncoded(t *testing.T) {
	if err := errs.Decode(errs.Encode(nil)); err != nil {
		t.Errorf("nothing became %v", err)
	}
	for _, kind := range allKinds() {
		want := errs.WithFaults(kind, "exec", errs.Fault{Field: "task", Reason: "gone"})
		got := errs.Decode(errs.Encode(want))
		if errs.KindOf(got) != kind || got.Error() != want.Error() {
			t.Errorf("%v became %v (%v)", want, got, errs.KindOf(got))
		}
		if diff := cmp.Diff(errs.FaultsOf(want), errs.FaultsOf(got)); diff != "" {
			t.Error(diff)
		}
	}
	if err := errs.Decode([]byte{0xff}); errs.KindOf(err) != errs.Internal {
		t.Errorf("noise became %v", err)
	}
	if err := errs.Decode(errs.Encode(errs.New(errs.Invalid, "\xff"))); err == nil {
		t.Error("an error became none")
	}
}
