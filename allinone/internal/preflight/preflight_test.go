package preflight_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"

	"github.com/shoalproject/shoal/allinone/internal/parts"
	"github.com/shoalproject/shoal/allinone/internal/preflight"
)

// network has ports that are taken, and a containerd or none.
type network struct {
	run.Network
	taken      []string
	containerd bool
}

func (n network) Listen(_ context.Context, _, address string) (net.Listener, error) {
	for _, t := range n.taken {
		if strings.HasSuffix(address, ":"+t) {
			return nil, errors.New("listen tcp " + address + ": bind: address already in use")
		}
	}
	return closer{}, nil
}

func (n network) Dial(context.Context, string, string) (net.Conn, error) {
	if n.containerd {
		client, server := net.Pipe()
		return client, server.Close()
	}
	return nil, errors.New("dial unix /run/containerd/containerd.sock: connect: no such file or directory")
}

type closer struct{ net.Listener }

func (closer) Close() error { return nil }

func machine(t *testing.T, n network, links ...string) preflight.Machine {
	t.Helper()
	return preflight.Machine{
		Files: testx.Env(t).Files, Net: n, Privileged: true,
		Addresses: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("192.0.2.7")}, nil },
		Links:     func() ([]string, error) { return append([]string{"lo", "eth0"}, links...), nil },
	}
}

func place(address string) parts.Place {
	return parts.Place{Root: "/data", Address: address, Containerd: "/run/containerd/containerd.sock", Snapshotter: "overlayfs"}
}

// Whoever tries is told everything that is in the way, once, and what to do about it.
func TestAllFaultsAtOnce(t *testing.T) {
	m := machine(t, network{taken: []string{"2377", "2384"}}, "shoal0")
	m.Privileged = false
	err := m.Check(t.Context(), place("127.0.0.1"), false)
	if got := len(errs.FaultsOf(err)); got != 4 {
		t.Errorf("%d faults, want 4: %v", got, err)
	}
	for _, want := range []string{"run it with sudo", "interface shoal0", "the ca needs it on 127.0.0.1: address already in use", "the gateway needs it"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("says %v, want it to contain %q", err, want)
		}
	}
	m.Privileged = true // only root may ask containerd
	if err := m.Check(t.Context(), place("127.0.0.1"), false); err == nil || !strings.Contains(err.Error(), "no such file or directory; install it") {
		t.Errorf("without containerd: %v", err)
	}
}

func TestAddress(t *testing.T) {
	m := machine(t, network{containerd: true})
	for _, good := range []string{"127.0.0.1", "::1", "192.0.2.7"} {
		if err := m.Check(t.Context(), place(good), false); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"192.0.2.8", "0.0.0.0", "ff02::1", "localhost"} {
		if err := m.Check(t.Context(), place(bad), false); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v, want a fault", bad, err)
		}
	}
}

// Interfaces of an earlier run of the same cluster are no fault; a machine of another cluster always is.
func TestOtherShoals(t *testing.T) {
	m := machine(t, network{containerd: true}, "shoal0")
	if err := m.Check(t.Context(), place("127.0.0.1"), true); err != nil {
		t.Errorf("over its own remains: %v", err)
	}
	name := "/var/lib/shoal/agent/identity/cert.pem"
	if err := m.Files.Write(name, []byte("a certificate"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := m.Check(t.Context(), place("127.0.0.1"), true); err == nil || !strings.Contains(err.Error(), "in a cluster already (/var/lib/shoal/agent)") {
		t.Errorf("on a machine of a cluster: %v", err)
	}
}
