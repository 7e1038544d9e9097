package listing_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/store/internal/listing"
)

// TestFilters: values of one key are alternatives, keys must all hold, and all that is not understood is told at once.
func TestFilters(t *testing.T) {
	labels := map[string]string{"zone": "a"}
	for given, want := range map[string]bool{
		"": true, "name=we": true, "name=web": true, "name=db": false, "name=db name=w": true, "name=w id=9": false,
		"label=zone": true, "label=zone=a": true, "label=zone=b": false, "mode=REPLICATED": true,
	} {
		f, err := listing.Parse("list", strings.Fields(given), "id", "name", "label", "mode")
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Prefix("id", "123") && f.Prefix("name", "web") && f.Label("label", labels) && f.Equal("mode", "replicated"); got != want {
			t.Errorf("%q passes: %t", given, got)
		}
	}
	if _, err := listing.Parse("list", []string{"color=red", "name"}, "name"); len(errs.FaultsOf(err)) != 2 {
		t.Errorf("two bad filters: %v", err)
	}
}

// TestPages: whatever goes or comes between two pages, no row that stays is left out or told twice.
func TestPages(t *testing.T) {
	rows := func(keys string) (out []listing.Row[string]) {
		for k := range strings.SplitSeq(keys, "") {
			out = append(out, listing.Row[string]{Key: k, Value: k})
		}
		return out
	}
	one := func(string) int { return 1 }
	first, token, err := listing.Page("list", rows("dbace"), 2, "", one)
	if err != nil || !slices.Equal(first, []string{"a", "b"}) {
		t.Fatalf("%v, %v", first, err)
	}
	rest, token, err := listing.Page("list", rows("adce"), 9, token, one) // b has gone
	if err != nil || !slices.Equal(rest, []string{"c", "d", "e"}) || token != "" {
		t.Errorf("%v, %q, %v", rest, token, err)
	}
	// A row that is too large for a page by itself is one.
	if got, next, err := listing.Page("list", rows("ab"), 0, "", func(string) int { return 3 << 20 }); err != nil || len(got) != 1 || next == "" {
		t.Errorf("large rows: %v, %q, %v", got, next, err)
	}
	if _, _, err := listing.Page("list", rows("a"), -1, "%", one); !errors.Is(err, errs.Invalid) || len(errs.FaultsOf(err)) != 2 {
		t.Errorf("bad size and token: %v", err)
	}
}
