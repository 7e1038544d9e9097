package keys_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/testx"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	meshv1 "github.com/shoalproject/shoal/proto/shoal/mesh/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/keys"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/seal"
)

// devices take what they are told, or refuse it.
type devices struct {
	mu    sync.Mutex // guards below
	have  map[string]seal.Device
	fault error
}

func (d *devices) Configure(name string, want seal.Device) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fault == nil {
		d.have[name] = want
	}
	return d.fault
}

func (d *devices) Seen(name string) (map[seal.PublicKey]time.Time, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[seal.PublicKey]time.Time{}
	for key := range d.have[name].Peers {
		out[key] = time.Now()
	}
	return out, nil
}

type health map[string]string

func (h health) Set(part string, ok bool, why string) {
	if h[part] = why; ok {
		h[part] = "ok"
	}
}

func byUserSpace() keys.Means {
	return keys.Means{By: typesv1.Dataplane_DATAPLANE_USERSPACE, Reason: "the kernel has none"}
}

// model has machine a with the keys that it has told, and machine b, with an encrypted network on both.
func model(t *testing.T, told *meshv1.DataplaneResponse, rotation uint64) *mesh.Model {
	t.Helper()
	m, err := (*mesh.Model)(nil).Apply(&dispatcherv1.EndpointsResponse{
		Version: &typesv1.Version{Revision: 1}, Full: true, Encryption: &typesv1.Encryption{KeyRotation: rotation},
		Machines: []*dispatcherv1.MeshMachine{
			{NodeId: "a", Vteps: []string{"198.51.100.1"}, Blocks: []string{"10.128.1.0/24"}, TunnelKeys: told.GetTunnelKeys()},
			{NodeId: "b", Vteps: []string{"198.51.100.2"}, Blocks: []string{"10.128.2.0/24"}, TunnelKeys: []*typesv1.TunnelKey{{Generation: 1, PublicKey: bytes.Repeat([]byte{7}, 32)}}},
		},
		Networks: []*dispatcherv1.MeshNetwork{{NetworkId: "n", Name: "n", Vni: 4097, Encrypted: true, Entries: []*dispatcherv1.NetworkEntry{
			{TaskId: "t", NodeId: "b", Addresses: []string{"10.0.0.6"}},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func self(m *mesh.Model) mesh.Self {
	return mesh.Self{Node: "a", Tunnel: m.Tunnel("a", nil), MTU: 1500}
}

// The private half is in a file that nobody else can read, and in what the device is told; nowhere else.
func TestPrivateKeyStays(t *testing.T) {
	env, d, h := testx.Env(t), &devices{have: map[string]seal.Device{}}, health{}
	r := keys.Open(env, "/data/tunnel.json", byUserSpace(), d, h)
	told, _ := r.Told()
	m := model(t, told, 0)
	way := r.Plan(m, self(m))
	r.Configure(false)
	private := d.have["shoal-wg1"].Private
	if private == [32]byte{} || way.Why != "" || h["encryption"] != "ok" {
		t.Fatalf("the device has key %t, the way is %q, health %q", private != [32]byte{}, way.Why, h["encryption"])
	}
	info, err := env.Files.Stat("/data/tunnel.json")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file of the keys: mode %v, %v; want 0600", info.Mode(), err)
	}
	told, _ = r.Told()
	if len(told.GetTunnelKeys()) != 1 || bytes.Contains(told.GetTunnelKeys()[0].GetPublicKey(), private[:]) || told.GetTunnel() != typesv1.Dataplane_DATAPLANE_USERSPACE {
		t.Errorf("told is %v", told)
	}
	again, _ := keys.Open(env, "/data/tunnel.json", byUserSpace(), d, h).Told()
	if !bytes.Equal(again.GetTunnelKeys()[0].GetPublicKey(), told.GetTunnelKeys()[0].GetPublicKey()) {
		t.Error("after a restart it has another key")
	}
}

// A device that refuses, and a file that cannot be written, are told, in health and to the cluster.
func TestTroubleIsTold(t *testing.T) {
	env, d, h := testx.Env(t), &devices{have: map[string]seal.Device{}, fault: errors.New("address already in use")}, health{}
	r := keys.Open(env, "/data/tunnel.json", byUserSpace(), d, h)
	told, changed := r.Told()
	m := model(t, told, 0)
	r.Plan(m, self(m))
	r.Configure(false)
	select {
	case <-changed:
	default:
		t.Error("nobody who waits has heard of it")
	}
	if told, _ = r.Told(); h["encryption"] != "address already in use" || told.GetTunnelReason() != "the kernel has none; address already in use" {
		t.Errorf("health says %q, the node %q", h["encryption"], told.GetTunnelReason())
	}
}

// The others hear by which addresses this machine may call them, whether or not it encrypts; and hear it again when they change.
func TestOwnAddressesAreTold(t *testing.T) {
	for _, means := range []keys.Means{byUserSpace(), {Reason: "no TUN device"}} {
		r := keys.Open(testx.Env(t), "/data/tunnel.json", means, &devices{have: map[string]seal.Device{}}, health{})
		told, changed := r.Told()
		m := model(t, told, 0)
		for _, want := range []string{"203.0.113.1", "2001:db8::1"} {
			here := self(m)
			here.Local = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr(want), netip.MustParseAddr("fe80::1")}
			r.Plan(m, here)
			select {
			case <-changed:
			default:
				t.Errorf("nobody who waits has heard of %s", want)
			}
			if told, changed = r.Told(); !slices.Equal(told.GetOwnAddresses(), []string{want}) {
				t.Errorf("told are %v, want %s alone", told.GetOwnAddresses(), want)
			}
		}
	}
}

// Of many addresses a few are told, and of both families though a machine has very many of one.
func TestOwnAddressesOfBothFamilies(t *testing.T) {
	at := func(format string, n int) (out []netip.Addr) {
		for i := range n {
			out = append(out, netip.MustParseAddr(fmt.Sprintf(format, i+1)))
		}
		return out
	}
	for _, tc := range []struct{ four, six, wantFour, wantSix int }{
		{20, 1, 15, 1}, {1, 20, 1, 15}, {20, 20, 8, 8}, {20, 0, 16, 0}, {0, 20, 0, 16}, {3, 2, 3, 2},
	} {
		r := keys.Open(testx.Env(t), "/data/tunnel.json", byUserSpace(), &devices{have: map[string]seal.Device{}}, health{})
		told, _ := r.Told()
		m := model(t, told, 0)
		here := self(m)
		here.Local = append(at("203.0.113.%d", tc.four), at("2001:db8::%d", tc.six)...)
		r.Plan(m, here)
		told, _ = r.Told()
		four, six := 0, 0
		for _, text := range told.GetOwnAddresses() {
			if netip.MustParseAddr(text).Is4() {
				four++
			} else {
				six++
			}
		}
		if four != tc.wantFour || six != tc.wantSix {
			t.Errorf("of %d and %d addresses %d and %d are told, want %d and %d: %s", tc.four, tc.six, four, six, tc.wantFour, tc.wantSix, told.GetOwnAddresses())
		}
	}
}

// A machine that cannot encrypt has no key, and says why.
func TestWithoutMeans(t *testing.T) {
	r := keys.Open(testx.Env(t), "/data/tunnel.json", keys.Means{Reason: "no TUN device"}, &devices{}, health{})
	told, _ := r.Told()
	m := model(t, told, 0)
	if way := r.Plan(m, self(m)); way.Why != "no TUN device" || len(told.GetTunnelKeys()) > 0 || told.GetTunnelReason() != "no TUN device" {
		t.Errorf("the way is %q, told %v", way.Why, told)
	}
}

// Asked for by the cluster, the next key comes, is used when the cluster knows it, and the old one goes.
func TestRotation(t *testing.T) {
	env, d := testx.Env(t), &devices{have: map[string]seal.Device{}}
	late := time.Duration(0)
	env.Now = func() time.Time { return time.Now().Add(late) }
	r := keys.Open(env, "/data/tunnel.json", byUserSpace(), d, health{})
	generations := func() (out []uint64) {
		told, _ := r.Told()
		m := model(t, told, 1)
		r.Plan(m, self(m))
		r.Configure(false)
		told, _ = r.Told()
		for _, k := range told.GetTunnelKeys() {
			out = append(out, k.GetGeneration())
		}
		return out
	}
	if got := generations(); !slices.Equal(got, []uint64{1, 2}) {
		t.Errorf("asked for, keys are %d, want 1 and 2", got)
	}
	if got := generations(); !slices.Equal(got, []uint64{1, 2}) {
		t.Errorf("at once, keys are %d, want 1 and 2", got)
	}
	late = time.Minute
	if got := generations(); !slices.Equal(got, []uint64{2}) {
		t.Errorf("a minute later keys are %d, want 2", got)
	}
}
