package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

func example() *report {
	r := newReport()
	r.add(bareClient, "up", "s", "", 2)
	r.add(ours, "up", "s", "2 × bare", 3)
	r.add(swarmPeer, "up", "s", "2 × bare", 15)
	r.add(ours, "creates", rate, "", 1000)
	r.add(swarmPeer, "creates", rate, "", 500)
	r.why("ports", "s", "", "no IPVS")
	r.why("ports", "s", "", "no IPVS")
	r.note("a note")
	r.note("a note")
	return r
}

// The bare client comes first and does not know the aim; it must be in the row all the same.
func TestTable(t *testing.T) {
	var out bytes.Buffer
	if err := example().table(&out); err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(out.String()) {
		name, rest, _ := strings.Cut(line, " ")
		rows[name] = strings.Join(strings.Fields(rest), " ")
	}
	if want := "s 3.00 (3.00–3.00) n=1 2.00 (2.00–2.00) n=1 1.50 × 15.0 (15.0–15.0) n=1 5.00 × 2 × bare"; rows["up"] != want {
		t.Errorf("row up: %q, want %q", rows["up"], want)
	}
	// More creates a second are better; a missing figure is a dash, never a number.
	if want := "1/s 1000 (1000–1000) n=1 - - 500 (500–500) n=1 2.00 × -"; rows["creates"] != want {
		t.Errorf("row creates: %q, want %q", rows["creates"], want)
	}
	if rows["ports:"] != "no IPVS" || strings.Count(out.String(), "a note") != 1 {
		t.Errorf("the reason and the note stand once each:\n%s", out.String())
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	if err := example().json(&out); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Rows []struct {
			Step         string
			Shoal, Swarm *series
		}
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Rows) != 3 || got.Rows[0].Shoal.Median != 3 || got.Rows[2].Shoal != nil {
		t.Errorf("rows: %+v", got.Rows)
	}
}

// All faults of the command line are told at once.
func TestBadFlags(t *testing.T) {
	err := command(t.Context(), []string{"-runs", "0", "-replicas", "1", "-only", "(", "-root", t.TempDir()}, "", io.Discard, io.Discard)
	for _, text := range []string{"-runs", "-replicas", "-only", "make build"} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v does not tell of %s", err, text)
		}
	}
	if err := command(t.Context(), []string{"-format", "xml"}, "", io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "xml") {
		t.Errorf("-format xml: %v", err)
	}
}
