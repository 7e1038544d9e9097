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
