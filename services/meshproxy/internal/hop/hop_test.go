package hop_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalproject/shoal/services/meshproxy/internal/hop"
	"github.com/shoalproject/shoal/services/meshproxy/internal/hop/hoptest"
)

// taken is a connection whose one end is taken into memory, and the other is Go's, with what is between them.
type taken struct {
	seal   *hop.Seal
	peer   *tls.Conn
	near   net.Conn // below the seal
	closed chan struct{}
}

func take(t *testing.T, client bool, keys *hoptest.Keys) *taken {
	t.Helper()
	near, far := pipe(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	own, other := keys.Server, keys.Client
	if client {
		own, other = keys.Client, keys.Server
	}
	var peer net.Conn
	var fault error
	var done sync.WaitGroup
	done.Go(func() { peer, fault = other(ctx, far) })
	conn, err := own(ctx, near)
	done.Wait()
	if err := errors.Join(err, fault); err != nil {
		t.Fatal(err)
	}
	k := &taken{peer: peer.(*tls.Conn), near: near, closed: make(chan struct{})}
	seal, ok := hop.Take(conn, func(raw net.Conn) bool { return raw == near }, func() { close(k.closed) })
	if !ok {
		t.Fatal("it could not be taken")
	}
	k.seal = seal
	return k
}

// pipe is a connection with room for much.
func pipe(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if far, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if near, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{near, far} {
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return near, far
}

// hears opens what is said by write, in pieces as piece says, and returns what was understood.
func (k *taken) hears(t *testing.T, write func(), want int, piece func() int) (got []byte, err error) {
	t.Helper()
	var writes sync.WaitGroup
	writes.Go(write)
	defer writes.Wait()
	came, plain := make([]byte, 64<<10), make([]byte, 96<<10)
	for len(got) < want && err == nil {
		n, fault := k.near.Read(came[:min(len(came), piece())])
		if fault != nil {
			return got, fault
		}
		n, err = k.seal.Open(came[:n], plain)
		got = append(got, plain[:n]...)
	}
	return got, err
}

// TestRecordsInAnyPieces: whatever is said, in records of whatever size, is understood in whatever pieces it comes; and what is said back
// is understood by a TLS that reads from a socket.
func TestRecordsInAnyPieces(t *testing.T) {
	keys := hoptest.New(t)
	rng, bytesOf := rand.New(rand.NewPCG(1, 2)), rand.NewChaCha8([32]byte{1})
	for i := range 30 {
		k := take(t, i%2 == 0, keys)
		most := []int{1, 5, 6, 100, 1500, 64 << 10}[i%6]
		said := make([]byte, 1+rng.IntN(200_000))
		if most < 10 {
			said = said[:min(len(said), 5000)]
		}
		_, _ = bytesOf.Read(said) // it always fills it
		sizes := rand.New(rand.NewPCG(uint64(i), 3))
		got, err := k.hears(t, func() {
			for rest := said; len(rest) > 0; {
				n := min(len(rest), 1+sizes.IntN(1<<(1+sizes.IntN(17))))
				if _, err := k.peer.Write(rest[:n]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
		}, len(said), func() int { return 1 + rng.IntN(most) })
		if err != nil || !bytes.Equal(got, said) {
			t.Fatalf("run %d, pieces of %d: %d bytes of %d, %v", i, most, len(got), len(said), err)
		}
		back := said[:min(len(said), 40_000)]
		if err := k.seal.Say(back); err != nil {
			t.Fatal(err)
		}
		if _, err := k.near.Write(k.seal.Out()); err != nil {
			t.Fatal(err)
		}
		k.seal.Put(nil)
		heard := make([]byte, len(back))
		if _, err := io.ReadFull(k.peer, heard); err != nil || !bytes.Equal(heard, back) {
			t.Fatalf("run %d: the peer heard otherwise, %v", i, err)
		}
	}
}

// TestFarewellIsTheEnd, and what was said before it is understood.
func TestFarewellIsTheEnd(t *testing.T) {
	k := take(t, true, hoptest.New(t))
	got, err := k.hears(t, func() {
		_, _ = k.peer.Write([]byte("bye"))
		_ = k.peer.CloseWrite()
	}, 100, func() int { return 64 << 10 })
	if string(got) != "bye" || !errors.Is(err, io.EOF) {
		t.Errorf("heard %q, %v", got, err)
	}
}

// TestForgedRecordIsAnError that stays one.
func TestForgedRecordIsAnError(t *testing.T) {
	k := take(t, true, hoptest.New(t))
	plain := make([]byte, 96<<10)
	forged := append([]byte{23, 3, 3, 0, 40}, make([]byte, 40)...)
	for range 2 {
		if n, err := k.seal.Open(forged, plain); n != 0 || err == nil {
			t.Fatalf("%d bytes were taken from a forged record, %v", n, err)
		}
	}
}

// TestClosedByOthersIsTold, once; and not what its owner closes.
func TestClosedByOthersIsTold(t *testing.T) {
	keys := hoptest.New(t)
	k := take(t, false, keys)
	below := k.seal.Give(k.near).(*tls.Conn).NetConn() // where a ledger would have it
	if err := below.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-k.closed:
		t.Error("it was given back, and its end is told")
	default:
	}
	k = take(t, false, keys)
	k.seal.Close()
	if len(k.seal.Out()) == 0 {
		t.Error("there is no farewell")
	}
	select {
	case <-k.closed:
		t.Error("its owner is told that it has closed it")
	default:
	}
}

// TestKeysAreChanged when the peer wants it, which Go's TLS never does: it is answered, and both sides go on with the next keys
// (RFC 8446, section 4.6.3).
func TestKeysAreChanged(t *testing.T) {
	var log strings.Builder
	keys := hoptest.Logging(t, &log)
	k := take(t, false, keys)
	if k.peer.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("this processor seals in another way")
	}
	secret := trafficSecret(t, log.String(), "CLIENT_TRAFFIC_SECRET_0")
	reply := trafficSecret(t, log.String(), "SERVER_TRAFFIC_SECRET_0")
	plain := make([]byte, 96<<10)
	var stream []byte
	stream = append(stream, sealed(t, secret, 0, 23, []byte("before"))...)
	stream = append(stream, sealed(t, secret, 1, 22, []byte{24, 0, 0, 1, 1})...) // key_update, update_requested
	secret = next(t, secret)
	stream = append(stream, sealed(t, secret, 0, 23, []byte("after"))...)
	var got []byte
	for _, b := range stream {
		n, err := k.seal.Open([]byte{b}, plain)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, plain[:n]...)
	}
	if string(got) != "beforeafter" {
		t.Errorf("heard %q", got)
	}
	// Its answer is the first that it says after the handshake's tickets, which the peer has not read: so they are opened in turn.
	out := k.seal.Out()
	if len(out) == 0 {
		t.Fatal("it is not answered")
	}
	k.seal.Put(nil)
	answered := false
	for seq := uint64(0); seq < 8 && !answered; seq++ {
		content, kind, ok := opened(t, reply, seq, out)
		answered = ok && kind == 22 && bytes.Equal(content, []byte{24, 0, 0, 1, 0})
	}
	if !answered {
		t.Fatal("what it answers is not that its keys change")
	}
	if err := k.seal.Say([]byte("with the next keys")); err != nil {
		t.Fatal(err)
	}
	if content, _, ok := opened(t, next(t, reply), 0, k.seal.Out()); !ok || string(content) != "with the next keys" {
		t.Errorf("it goes on with other keys: %q, %v", content, ok)
	}
}

func trafficSecret(t *testing.T, log, label string) []byte {
	t.Helper()
	for line := range strings.Lines(log) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == label {
			secret, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			return secret
		}
	}
	t.Fatalf("no %s", label)
	return nil
}

// expand is HKDF-Expand-Label without context (RFC 8446, section 7.1).
func expand(t *testing.T, secret []byte, label string, length int) []byte {
	t.Helper()
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(length))
	info = append(append(append(info, byte(len(label))), label...), 0)
	out, err := hkdf.Expand(sha256.New, secret, string(info), length)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func next(t *testing.T, secret []byte) []byte { return expand(t, secret, "traffic upd", len(secret)) }

// aeadOf is what seals record seq, and its nonce (RFC 8446, section 5.3).
func aeadOf(t *testing.T, secret []byte, seq uint64) (cipher.AEAD, []byte) {
	t.Helper()
	block, err := aes.NewCipher(expand(t, secret, "key", 16))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := expand(t, secret, "iv", 12)
	for i, b := range binary.BigEndian.AppendUint64(nil, seq) {
		nonce[4+i] ^= b
	}
	return aead, nonce
}

func sealed(t *testing.T, secret []byte, seq uint64, kind byte, content []byte) []byte {
	t.Helper()
	aead, nonce := aeadOf(t, secret, seq)
	inner := append(bytes.Clone(content), kind)
	head := append([]byte{23, 3, 3}, binary.BigEndian.AppendUint16(nil, uint16(len(inner)+aead.Overhead()))...)
	return aead.Seal(head, nonce, inner, head)
}

func opened(t *testing.T, secret []byte, seq uint64, record []byte) (content []byte, kind byte, ok bool) {
	t.Helper()
	aead, nonce := aeadOf(t, secret, seq)
	inner, err := aead.Open(nil, nonce, record[5:], record[:5])
	if err != nil {
		return nil, 0, false
	}
	return inner[:len(inner)-1], inner[len(inner)-1], true
}
