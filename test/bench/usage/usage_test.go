package usage

import "testing"

func TestParseMemory(t *testing.T) {
	const text = "00400000-7fff06bf1000 ---p 00000000 00:00 0 [rollup]\nRss: 20480 kB\nPss: 20000 kB\nAnonymous: 5120 kB\n"
	got, err := parseMemory(text)
	if err != nil || got.Resident != 20 || got.Anonymous != 5 {
		t.Errorf("%+v, %v; want 20 and 5 MiB", got, err)
	}
	if _, err := parseMemory("cat: /proc//smaps_rollup: No such file"); err == nil {
		t.Error("a process that is not there has no memory, and no error")
	}
}

func TestParseCPU(t *testing.T) {
	const text = "77 (a name) with) S 1 77 77 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 1000 1 1 1"
	if got, err := parseCPU(text); err != nil || got.Seconds() != 3 {
		t.Errorf("%v, %v; want 3 s", got, err)
	}
	if _, err := parseCPU("gone"); err == nil {
		t.Error("a process that is not there has used nothing, and no error")
	}
}
