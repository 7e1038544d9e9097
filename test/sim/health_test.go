package sim_test

import (
	"context"
	"path"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/health"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	"github.com/shoalproject/shoal/test/sim"
)

// askHealth is the verb health, on the machine itself.
func askHealth(m *sim.Machine, r authzv1.Role) (parts []health.Part, err error) {
	err = m.Command("health", func(ctx context.Context, env run.Env) (err error) {
		parts, err = health.Ask(ctx, env, path.Join(enroll.DefaultRoot, identity.RoleName(r), health.SocketFile))
		return err
	})
	return parts, err
}

// Every process says on its machine how it is: that all its parts are well, what it waits for, or nothing when it is gone.
func TestEveryProcessSaysHowItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		control := []authzv1.Role{caRole, storeRole, schedulerRole, dispatcherRole, gatewayRole}
		c := sim.New(t, 31, sim.Plan{{Host: "m1", Roles: control}, {Host: "n01", Roles: []authzv1.Role{agentRole, meshRole}}})
		c.Ready(10 * time.Second)
		everyone := func(want func(m *sim.Machine, r authzv1.Role) string) string {
			for _, m := range c.Machines {
				for _, r := range m.Roles {
					if fault := want(m, r); fault != "" {
						return identity.RoleName(r) + ": " + fault
					}
				}
			}
			return ""
		}
		well := func(m *sim.Machine, r authzv1.Role) string {
			parts, err := askHealth(m, r)
			if err != nil {
				return err.Error()
			}
			if len(parts) == 0 {
				return "names no part"
			}
			return ""
		}
		c.Until("all processes are well", 5*time.Second, func() string { return everyone(well) })

		c.Machine("m1").Stop("dispatcher")
		c.Until("the agent says what it waits for", 20*time.Second, func() string {
			parts, err := askHealth(c.Machine("n01"), agentRole)
			if !errs.Is(err, errs.Unavailable) || len(parts) == 0 || parts[0].Well || parts[0].Why == "" {
				return "it says nothing of it"
			}
			return ""
		})
		if _, err := askHealth(c.Machine("m1"), dispatcherRole); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "no process") {
			t.Errorf("the dispatcher that was stopped: %v", err)
		}

		for _, m := range c.Machines { // a kill leaves the socket's file behind
			for _, r := range m.Roles {
				m.Kill(identity.RoleName(r))
				if err := m.StartAgain(identity.RoleName(r)); err != nil {
					t.Fatal(err)
				}
			}
		}
		c.Until("all processes are well again", 30*time.Second, func() string { return everyone(well) })
	})
}
