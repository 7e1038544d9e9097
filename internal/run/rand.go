package run

import (
	crand "crypto/rand"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"
)

// Rand is a source of random choices that is safe for concurrent use. On a machine it is the kernel's; in a test it is
// seeded, so that a run can be repeated.
type Rand struct {
	mu  sync.Mutex // guards src and r
	src source
	r   *rand.Rand
}

// source is what both kinds of generator have.
type source interface {
	rand.Source
	Read(p []byte) (int, error)
}

// NewRand is a seeded generator, for tests and the simulation: never for keys on a machine.
func NewRand(seed uint64) *Rand {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return newRand(rand.NewChaCha8(key))
}

func newMachineRand() *Rand { return newRand(kernelSource{}) }

func newRand(src source) *Rand { return &Rand{src: src, r: rand.New(src)} }

// kernelSource reads crypto/rand, which never fails (it ends the process rather than give weak bytes).
type kernelSource struct{}

func (kernelSource) Read(p []byte) (int, error) { return crand.Read(p) }

func (kernelSource) Uint64() uint64 {
	var b [8]byte
	_, _ = crand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// Read fills p; it never fails. So a *Rand is the io.Reader that key generation asks for.
func (r *Rand) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.src.Read(p)
}

// Uint64 is any 64 bits.
func (r *Rand) Uint64() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.r.Uint64()
}

// IntN is in [0, n); it is 0 for n < 1.
func (r *Rand) IntN(n int) int {
	if n < 1 {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.r.IntN(n)
}

// Float64 is in [0, 1).
func (r *Rand) Float64() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.r.Float64()
}

// Jitter is d, up to frac of it more or less: Jitter(10*time.Second, 0.1) is in [9s, 11s).
func (r *Rand) Jitter(d time.Duration, frac float64) time.Duration {
	return d + time.Duration((2*r.Float64()-1)*frac*float64(d))
}
