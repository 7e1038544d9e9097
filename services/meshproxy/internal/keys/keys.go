// Package keys keeps the machine's WireGuard keys and has its devices use them, and tells what the others need to know of this machine.
//
// It owns the keys: their file, which only this process can read, and what is told of them and of the machine's addresses. A private key leaves this machine never,
// and this process only for the device that it is for. What is to be done is package seal's to say, how is package wireguard's. A Ring
// is safe for concurrent use.
package keys

import (
	"cmp"
	"context"
	"crypto/ecdh"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/seal"
)

// pause is how often handshakes are looked at while a key follows another.
const pause = time.Second

// Devices are what uses the keys.
type Devices interface {
	Configure(name string, want seal.Device) error
	Seen(name string) (map[seal.PublicKey]time.Time, error)
}

// Health is told what waits, and why.
type Health interface {
	Set(part string, ok bool, why string)
}

// Means are what encrypts on this machine.
type Means struct {
	// By is the kernel or user space, or unspecified: nothing can.
	By typesv1.Dataplane
	// Reason that it is not the kernel.
	Reason string
}

// Ring has a machine's keys.
type Ring struct {
	env     run.Env
	file    string
	means   Means
	devices Devices
	health  Health

	mu      sync.Mutex // guards all below
	keys    []seal.Key
	model   *mesh.Model
	self    mesh.Self
	plan    seal.Plan
	seen    seal.Seen // while a key follows another
	trouble error     // of the devices or the file
	told    *meshv1.DataplaneResponse
	changed chan struct{} // closed when told is replaced
}

// Open takes the keys of the file, or makes the first. An unreadable file is told and made anew: the others learn the new key.
func Open(env run.Env, file string, means Means, d Devices, h Health) *Ring {
	r := &Ring{env: env, file: file, means: means, devices: d, health: h, told: &meshv1.DataplaneResponse{Serial: 1}, changed: make(chan struct{})}
	data, err := env.Files.Read(file)
	if err == nil {
		err = json.Unmarshal(data, &r.keys)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		env.Log.Warn("keys for encrypted networks not read, making others", "file", file, "error", err)
		r.keys = nil
	}
	if len(r.keys) == 0 && means.By != 0 {
		r.trouble = r.make(0)
	}
	r.tell()
	return r
}

// Plan says how this machine reaches the others encrypted, and makes or drops keys when it is time.
func (r *Ring) Plan(m *mesh.Model, self mesh.Self) mesh.Seal {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.model, r.self, r.trouble = m, self, nil
	if r.means.By == 0 {
		r.tell()
		return mesh.Seal{Why: r.means.Reason}
	}
	p := r.next()
	switch {
	case p.Make:
		r.trouble = r.make(m.Encryption().GetKeyRotation())
		p = r.next()
	case p.Drop != 0:
		r.trouble = r.drop(p.Drop)
		p = r.next()
	}
	r.plan = p
	r.tell()
	return p.Seal
}

// next plans with what is seen now. Handshakes matter only while a key follows another.
func (r *Ring) next() seal.Plan {
	now := r.env.Now()
	p := seal.Make(r.model, r.self, r.keys, nil, now)
	if !p.Turning {
		r.seen = nil
		return p
	}
	r.look(p.Devices, now)
	return seal.Make(r.model, r.self, r.keys, r.seen, now)
}

// look sees which keys have shaken hands. A device says when two did last; that they did before is for this ring to remember.
func (r *Ring) look(devices map[string]seal.Device, now time.Time) {
	seen := seal.Seen{}
	for name := range devices {
		shook, err := r.devices.Seen(name)
		if err != nil {
			continue // it is about to be made
		}
		seen[name] = map[seal.PublicKey]seal.Shake{}
		for key, last := range shook {
			if last.IsZero() {
				continue
			}
			shake := seal.Shake{First: now, Last: last}
			if before, ok := r.seen[name][key]; ok {
				shake.First = before.First
			}
			seen[name][key] = shake
		}
	}
	r.seen = seen
}

// Configure has the devices be as planned. Their links must be there. What fails is told, and tried again. A plan by remembered tables
// may know less than the devices of a meshproxy before this one: those that have peers stay as they are.
func (r *Ring) Configure(remembered bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	faults := []error{r.trouble}
	for name, d := range r.plan.Devices {
		if seen, err := r.devices.Seen(name); remembered && err == nil && len(seen) > 0 {
			continue
		}
		faults = append(faults, r.devices.Configure(name, d))
	}
	r.trouble = errors.Join(faults...)
	r.tell()
}

// Run has the loop plan again when a handshake has changed what is best, or something failed, until ctx ends.
func (r *Ring) Run(ctx context.Context, again func()) error {
	for run.Sleep(ctx, pause) == nil {
		if r.stale() {
			again()
		}
	}
	return nil
}

func (r *Ring) stale() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trouble != nil {
		return true
	}
	if !r.plan.Turning {
		return false
	}
	p := r.next()
	return p.Make || p.Drop != 0 || !reflect.DeepEqual(p.Seal, r.plan.Seal) || !reflect.DeepEqual(p.Devices, r.plan.Devices)
}

// Told is what others may know of it, and a channel that is closed when that changes.
func (r *Ring) Told() (*meshv1.DataplaneResponse, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told, r.changed
}

// tell needs the lock.
func (r *Ring) tell() {
	next := &meshv1.DataplaneResponse{Tunnel: r.means.By, Serial: r.told.GetSerial() + 1}
	for _, k := range r.keys {
		next.TunnelKeys = append(next.TunnelKeys, &typesv1.TunnelKey{Generation: k.Generation, PublicKey: k.Public[:]})
	}
	next.OwnAddresses = callsFrom(r.self.Local)
	reasons := slices.Clone(r.plan.Faults)
	if r.trouble != nil {
		reasons = append(reasons, r.trouble.Error())
	}
	r.health.Set("encryption", len(reasons) == 0, strings.Join(reasons, "; "))
	if r.means.Reason != "" {
		reasons = append([]string{r.means.Reason}, reasons...)
	}
	next.TunnelReason = strings.Join(reasons, "; ")
	if r.told.GetTunnel() == next.GetTunnel() && slices.Equal(r.told.GetOwnAddresses(), next.GetOwnAddresses()) && r.told.GetTunnelReason() == next.GetTunnelReason() && slices.EqualFunc(r.told.GetTunnelKeys(), next.GetTunnelKeys(), func(a, b *typesv1.TunnelKey) bool {
		return slices.Equal(a.GetPublicKey(), b.GetPublicKey())
	}) {
		return
	}
	r.told = next
	close(r.changed)
	r.changed = make(chan struct{})
}

// maxOwn bounds the addresses of a machine that all others have in their tables, with each task on it.
const maxOwn = 16

// callsFrom are those of a machine's addresses by which it may call others, whichever it advertises: where a port leads it back to a task
// of its own it must be known by them, or the answer ends at the machine itself. The families take turns, so that none is left out
// because there are many of the other.
func callsFrom(local []netip.Addr) (out []string) {
	var four, six []netip.Addr
	for _, a := range local {
		switch {
		case !a.IsGlobalUnicast():
		case a.Is4():
			four = append(four, a)
		default:
			six = append(six, a)
		}
	}
	for i := 0; len(out) < maxOwn && i < max(len(four), len(six)); i++ {
		for _, family := range [][]netip.Addr{four, six} {
			if i < len(family) && len(out) < maxOwn {
				out = append(out, family[i].String())
			}
		}
	}
	return out
}

// make adds a key. It is on disk before anybody hears of it.
func (r *Ring) make(rotation uint64) error {
	k := seal.Key{Generation: 1, Made: r.env.Now(), Rotation: rotation}
	if n := len(r.keys); n > 0 {
		k.Generation = r.keys[n-1].Generation + 1
	}
	if _, err := r.env.Rand.Read(k.Private[:]); err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	k.Private[0] &= 248 // RFC 7748, 5: as WireGuard keeps it, so that what is read back is the same
	k.Private[31] = k.Private[31]&127 | 64
	private, err := ecdh.X25519().NewPrivateKey(k.Private[:])
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	k.Public = seal.PublicKey(private.PublicKey().Bytes())
	if err := r.keep(append(slices.Clone(r.keys), k)); err != nil {
		return err
	}
	r.env.Log.Info("key for encrypted networks made", "generation", k.Generation)
	return nil
}

func (r *Ring) drop(generation uint64) error {
	rest := slices.DeleteFunc(slices.Clone(r.keys), func(k seal.Key) bool { return k.Generation == generation })
	if err := r.keep(rest); err != nil {
		return err
	}
	r.env.Log.Info("key for encrypted networks dropped", "generation", generation)
	return nil
}

func (r *Ring) keep(all []seal.Key) error {
	slices.SortFunc(all, func(a, b seal.Key) int { return cmp.Compare(a.Generation, b.Generation) })
	data, err := json.Marshal(all)
	if err == nil {
		err = r.env.Files.Write(r.file, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep the keys for encrypted networks: %w", err)
	}
	r.keys = all
	return nil
}
