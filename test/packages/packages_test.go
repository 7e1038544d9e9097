package packages

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestEqualSourcesMakeEqualPackages(t *testing.T) {
	here, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	there := filepath.Join(t.TempDir(), "another", "place")
	if err := Copy(t.Context(), here, there); err != nil {
		t.Fatal(err)
	}
	one, err := Build(t.Context(), here, t.TempDir(), runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	two, err := Build(t.Context(), there, t.TempDir(), runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(one, "\n"); n != 2*10+1 {
		t.Errorf("%d packages: %s", n, one)
	}
	if one != two {
		t.Errorf("the first build\n%s\nthe second\n%s", one, two)
	}
}
