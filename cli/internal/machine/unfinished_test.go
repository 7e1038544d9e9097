package machine_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/contexts"

	"github.com/shoalproject/shoal/cli/internal/machine"
)

// What starts containers may leave the token out once the machine has joined, and not before.
func TestJoinedOnceWhereNobodyStartsUnits(t *testing.T) {
	inCluster(t, func(t *testing.T, h *host, ca *authority) {
		if h.machine().Again(machine.StartNone, nil) {
			t.Error("a bare machine has joined")
		}
		req := machine.Join{Token: ca.worker.String(), Address: "10.0.0.9", Advertise: "192.0.2.7", Start: machine.StartNone}
		if _, err := h.machine().Join(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			start machine.Start
			roles []authzv1.Role
			want  bool
		}{
			{machine.StartNone, nil, true},
			{machine.StartNone, []authzv1.Role{authzv1.Role_ROLE_AGENT}, true},
			{machine.StartNone, []authzv1.Role{authzv1.Role_ROLE_AGENT, store}, false},
			{machine.StartUnits, nil, false},
		} {
			if got := h.machine().Again(c.start, c.roles); got != c.want {
				t.Errorf("%s with %v: %t, want %t", c.start, c.roles, got, c.want)
			}
		}
	})
}

// The power went between two files: what is started elsewhere would find half a process for ever.
func TestAnUnfinishedJoinIsMadeAgain(t *testing.T) {
	inCluster(t, func(t *testing.T, h *host, ca *authority) {
		h.users = map[string]int{"shoal-agent": 70}
		req := machine.Join{Token: ca.worker.String(), Address: "10.0.0.9", Advertise: "192.0.2.7", Start: machine.StartNone}
		if _, err := h.machine().Join(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		const marker = "/var/lib/shoal/unfinished"
		if _, err := h.env.Files.Stat(marker); err == nil {
			t.Error("a join that is done says that it is not")
		}
		if err := errors.Join(h.env.Files.Write(marker, []byte("meshproxy\nagent\n"), 0o640), h.env.Files.Remove("/etc/shoal/meshproxy.yaml")); err != nil {
			t.Fatal(err)
		}
		h.owned = map[string][2]int{}
		if h.machine().Again(machine.StartNone, nil) {
			t.Error("half a join counts as one")
		}
		done, err := h.machine().Join(t.Context(), req)
		if err != nil || len(done.Roles) != 2 || len(done.Had) != 0 {
			t.Errorf("%+v, %v", done, err)
		}
		h.has(t, "/etc/shoal/meshproxy.yaml", "192.0.2.7")
		if h.owned["/var/lib/shoal/agent"] != [2]int{70, 70} {
			t.Errorf("the files are of %v", h.owned)
		}
		// And what is whole has its owners again, at each start.
		h.owned = map[string][2]int{}
		if done, err := h.machine().Join(t.Context(), req); err != nil || len(done.Had) != 2 || h.owned["/var/lib/shoal/agent"] != [2]int{70, 70} {
			t.Errorf("%+v, %v, the files are of %v", done, err, h.owned)
		}
	})
}

func TestAnUnfinishedInitIsNotTakenForACluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		req := machine.Init{Operator: "ada", Advertise: "10.0.0.1", Contexts: contexts.New(h.env.Files, configFolder), Start: machine.StartNone}
		if _, err := h.machine().Init(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		if err := h.env.Files.Write("/var/lib/shoal/unfinished", []byte("stor"), 0o640); err != nil { // half a list
			t.Fatal(err)
		}
		if _, err := h.machine().Init(t.Context(), req); err == nil || !strings.Contains(err.Error(), "shoal node reset") {
			t.Errorf("got %v", err)
		}
	})
}
