package machine_test

import (
	"io/fs"
	"path"
	"strings"
	"testing"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/cli/internal/machine"
)

// Somebody has removed the members, or an earlier leave was interrupted after it had.
func TestWhatTheClusterHasRemovedLeavesWithoutForce(t *testing.T) {
	inCluster(t, func(t *testing.T, h *host, ca *authority) {
		if _, err := h.join(t.Context(), ca.manager, store, dispatcher, agent, meshproxy); err != nil {
			t.Fatal(err)
		}
		id := h.machine().ID()
		cluster := &letting{gone: []string{"dispatcher/" + id, "agent/" + id}}
		left, err := h.machine().Leave(t.Context(), machine.Leave{Roles: []authzv1.Role{dispatcher, agent}, Cluster: cluster})
		if err != nil || len(left.Warnings) > 0 || h.units() != "meshproxy store" {
			t.Errorf("%+v, %v, units %s", left, err, h.units())
		}
		for _, f := range h.files(t) {
			if strings.Contains(f, "/dispatcher") || strings.Contains(f, "/agent") {
				t.Errorf("%s stayed", f)
			}
		}
	})
}

// Nobody could be asked, so the cluster knows the process by its key still: only with that it may come back.
func TestAForcedLeaveKeepsTheKeyThatTheClusterKnows(t *testing.T) {
	inCluster(t, func(t *testing.T, h *host, ca *authority) {
		if _, err := h.join(t.Context(), ca.manager, store, dispatcher, agent, meshproxy); err != nil {
			t.Fatal(err)
		}
		const kept = "/identity/key.pem.next"
		id := h.machine().ID()
		for role, cluster := range map[authzv1.Role]machine.Cluster{dispatcher: nil, store: &letting{refuse: "remove store/" + id}} {
			if _, err := h.machine().Leave(t.Context(), machine.Leave{Roles: []authzv1.Role{role}, Force: true, Cluster: cluster}); err != nil {
				t.Error(err)
			}
		}
		for _, name := range []string{"dispatcher", "store"} {
			if _, err := h.env.Files.Stat("/var/lib/shoal/" + name + kept); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// mounted is a host with a folder that is a file system of its own: what is in it can be removed, and it can't.
type mounted struct {
	*host
	at string
}

func (m mounted) RemoveAll(name string) error {
	if name != m.at {
		return m.host.RemoveAll(name)
	}
	names, err := m.env.Files.List(name)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := m.host.RemoveAll(path.Join(name, n)); err != nil {
			return err
		}
	}
	return &fs.PathError{Op: "unlinkat", Path: name, Err: fs.ErrInvalid}
}

func TestAMachineLeavesThoughAFolderIsMounted(t *testing.T) {
	inCluster(t, func(t *testing.T, h *host, ca *authority) {
		if _, err := h.join(t.Context(), ca.worker); err != nil {
			t.Fatal(err)
		}
		m := h.machine()
		m.Host = mounted{h, "/var/lib/shoal/meshproxy"}
		if _, err := m.Leave(t.Context(), machine.Leave{}); err != nil || len(h.files(t)) > 0 {
			t.Errorf("%v, and %v stayed", err, h.files(t))
		}
	})
}

// stuck is a host with a folder of which nothing can be removed.
type stuck struct {
	*host
	at string
}

func (s stuck) RemoveAll(name string) error {
	if name == s.at {
		return &fs.PathError{Op: "unlinkat", Path: name, Err: fs.ErrPermission}
	}
	return s.host.RemoveAll(name)
}

func TestOneFolderThatStaysKeepsNothingElse(t *testing.T) {
	inCluster(t, func(t *testing.T, h *host, ca *authority) {
		if _, err := h.join(t.Context(), ca.manager); err != nil {
			t.Fatal(err)
		}
		m := h.machine()
		m.Host = stuck{h, "/var/lib/shoal/store"}
		if _, err := m.Leave(t.Context(), machine.Leave{Force: true}); err == nil || !strings.Contains(err.Error(), "remove /var/lib/shoal/store") {
			t.Errorf("got %v", err)
		}
		for _, f := range h.files(t) {
			if !strings.HasPrefix(f, "/var/lib/shoal/store/") {
				t.Errorf("%s stayed", f)
			}
		}
	})
}
