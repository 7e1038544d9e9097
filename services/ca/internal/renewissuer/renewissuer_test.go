package renewissuer_test

import (
	"errors"
	"io/fs"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	"github.com/shoalproject/shoal/services/ca/internal/renewissuer"
	"github.com/shoalproject/shoal/services/ca/internal/root"
)

// cut is a disk whose power goes after so many writes.
type cut struct {
	run.Files
	left int
}

func (c *cut) Write(name string, data []byte, mode fs.FileMode) error {
	if c.left--; c.left < 0 {
		return errors.New("power lost")
	}
	return c.Files.Write(name, data, mode)
}

func TestAPowerCutLeavesTheOldCertificateOrTheNew(t *testing.T) {
	r := run.NewRand(1)
	top, err := root.New(r, "c1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	first, _ := top.Issuing(r, "m1", time.Now())
	second, _ := top.Issuing(r, "m1", time.Now())
	for writes := range 4 {
		files := testx.NewFiles()
		if err := renewissuer.Write(files, "/issuing", first); err != nil {
			t.Fatal(err)
		}
		_ = renewissuer.Write(&cut{files, writes}, "/issuing", second)
		got, err := renewissuer.Read(files, "/issuing")
		if err != nil {
			t.Errorf("after %d writes: %v", writes, err)
			continue
		}
		if want := map[bool]*root.Signer{true: first, false: second}[writes < 2]; !got.Certificate().Equal(want.Certificate()) {
			t.Errorf("after %d writes the other certificate is there", writes)
		}
	}
}
