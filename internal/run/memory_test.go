package run

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Only pages of the program's own file that nobody can write to are given back: any other would lose what is in it.
func TestProgramPagesAreReadOnlyAndItsOwn(t *testing.T) {
	const maps = `00400000-00efb000 r-xp 00000000 fe:00 3417 /usr/bin/shoal-store
00efb000-01c27000 r--p 00afb000 fe:00 3417 /usr/bin/shoal-store
01c27000-01cc1000 rw-p 01827000 fe:00 3417 /usr/bin/shoal-store
01cc1000-03d10000 rw-p 00000000 00:00 0
7f50de0e0000-7f50de400000 r--p 00000000 fe:00 99 /usr/lib/other
7fff06bd0000-7fff06bf1000 rw-p 00000000 00:00 0 [stack]
`
	want := []pages{{0x400000, 0xefb000}, {0xefb000, 0x1c27000}}
	if diff := cmp.Diff(want, programPages(maps, "/usr/bin/shoal-store"), cmp.AllowUnexported(pages{})); diff != "" {
		t.Error(diff)
	}
	if got := programPages(maps, "/usr/bin/shoal-ca"); got != nil {
		t.Errorf("of another program: %v", got)
	}
}

// Collecting must not be in the way of work: only what allocates little and has a small heap does it.
func TestIdleMeansLittleAllocatedAndASmallHeap(t *testing.T) {
	for _, c := range []struct {
		name       string
		last, next heap
		want       bool
	}{
		{"little", heap{100 << 20, 2 << 20}, heap{101 << 20, 3 << 20}, true},
		{"busy", heap{100 << 20, 2 << 20}, heap{200 << 20, 3 << 20}, false},
		{"much in use", heap{100 << 20, 90 << 20}, heap{101 << 20, 91 << 20}, false},
	} {
		if got := idle(c.last, c.next); got != c.want {
			t.Errorf("%s: idle is %t, want %t", c.name, got, c.want)
		}
	}
	if now := allocated(); now.ever == 0 || now.inUse == 0 || now.inUse > now.ever {
		t.Errorf("this process has allocated %+v", now)
	}
}

// A process that has dropped its program's pages is smaller, and works on.
func TestDroppedProgramWorksOn(t *testing.T) {
	before := fileResident(t)
	dropProgram()
	if after := fileResident(t); after >= before {
		t.Errorf("%s of the program's file are resident, were %s", after, before)
	}
}

// fileResident is the RssFile of proc_pid_status(5), padded by the kernel so that texts compare as numbers do.
func fileResident(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "RssFile:"); ok {
			return strings.TrimSuffix(rest, "\n")
		}
	}
	t.Fatal("the kernel does not tell RssFile")
	return ""
}
