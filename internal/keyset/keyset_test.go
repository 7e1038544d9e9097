package keyset_test

import (
	"bytes"
	"crypto/ecdh"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/keyset"
	"github.com/shoalproject/shoal/internal/run"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

func wrapKey(t *testing.T, r *run.Rand) *ecdh.PrivateKey {
	t.Helper()
	k, err := ecdh.X25519().GenerateKey(r)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestOnlyTheMemberItIsWrappedToOpensIt(t *testing.T) {
	r := run.NewRand(1)
	k, own, other := keyset.New(r, "c1"), wrapKey(t, r), wrapKey(t, r)
	wrapped, err := k.Wrap("ca/a", own.PublicKey().Bytes())
	if err != nil {
		t.Fatal(err)
	}
	got, err := keyset.Unwrap("c1", wrapped, own)
	if err != nil {
		t.Fatal(err)
	}
	sealed, _ := k.Seal(r, "x", []byte("data"))
	if data, err := got.Open("x", sealed); err != nil || string(data) != "data" {
		t.Errorf("the unwrapped key opens %q (%v)", data, err)
	}
	if _, err := keyset.Unwrap("c1", wrapped, other); err == nil {
		t.Error("another wrap key opened it")
	}
	if _, err := keyset.Unwrap("c2", wrapped, own); err == nil {
		t.Error("it opened as another cluster's")
	}
	for name, spoil := range map[string]func(*typesv1.WrappedKey){
		"member": func(w *typesv1.WrappedKey) { w.MemberId = "ca/b" },
		"key id": func(w *typesv1.WrappedKey) { w.KeyId = "other" },
		"data":   func(w *typesv1.WrappedKey) { w.Data[len(w.GetData())-1] ^= 1 },
		"length": func(w *typesv1.WrappedKey) { w.Data = w.GetData()[:10] },
	} {
		w := proto.CloneOf(wrapped)
		spoil(w)
		if _, err := keyset.Unwrap("c1", w, own); err == nil {
			t.Errorf("it opened with another %s", name)
		}
	}
}

func TestWhatIsSealedOpensForItsPurposeAlone(t *testing.T) {
	r := run.NewRand(1)
	k := keyset.New(r, "c1")
	sealed, err := k.Seal(r, "root key", []byte("very secret"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed.GetData(), []byte("very secret")) {
		t.Error("the data is in clear")
	}
	if _, err := k.Open("something else", sealed); err == nil {
		t.Error("it opened for another purpose")
	}
	if _, err := keyset.New(r, "c1").Open("root key", sealed); err == nil {
		t.Error("another key opened it")
	}
	for i := range sealed.GetData() {
		spoilt := proto.CloneOf(sealed)
		spoilt.Data[i] ^= 1
		if _, err := k.Open("root key", spoilt); err == nil {
			t.Fatalf("it opened with byte %d changed", i)
		}
	}
}

func TestPrintingAKeysetShowsNoKey(t *testing.T) {
	k := keyset.New(run.NewRand(1), "c1")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, k); got != "keyset "+k.ID() || strings.Contains(got, "[") {
			t.Errorf("%s prints %q", verb, got)
		}
	}
}
