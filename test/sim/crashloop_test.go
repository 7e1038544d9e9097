package sim_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/agenttest"
	"github.com/shoalproject/shoal/test/sim"
)

// looping is how many tasks crash again and again on one machine.
const looping = 40

// Tasks that crash again and again on one machine leave the others alone: no other task is touched, the machine stays ready,
// and a service is made, scaled and updated beside them as fast as ever.
func TestCrashLoopsLeaveTheOthersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 9, apart())
		const crashing = "registry.test/crashing:1"
		for _, m := range c.Machines {
			m.Runtime.Behave(crashing, agenttest.Behaviour{RunFor: 100 * time.Millisecond, ExitCode: 1})
		}
		serve(t, c, 8)
		good := func() (ids []string) {
			for _, l := range tasksOf(t, c, "web") {
				ids = append(ids, l.GetTask().GetMeta().GetId())
			}
			slices.Sort(ids)
			return ids
		}
		before := good()
		if _, err := c.Operator.CreateService("bad", 1); err != nil {
			t.Fatal(err)
		}
		err := c.Operator.Update("bad", func(s *typesv1.ServiceSpec) {
			s.GetReplicated().Replicas = new(uint64(looping))
			s.Task.Container.Image = crashing
			s.Task.Placement = &typesv1.Placement{Constraints: []string{"node.hostname==n01"}}
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2 {
			time.Sleep(10 * time.Second)
			if _, err := c.Operator.CreateService(fmt.Sprint("beside-", i), 4); err != nil {
				t.Fatal(err)
			}
			took := c.Operator.Converge(fmt.Sprint("beside-", i), 4, 10*time.Second)
			t.Logf("a service beside %d crash loops: %s", looping, took)
		}
		if now := good(); !slices.Equal(now, before) {
			t.Errorf("the others are %v, were %v", now, before)
		}
		if s := c.Operator.NodeState("n01"); s != typesv1.NodeState_NODE_STATE_READY {
			t.Errorf("the machine is %v", s)
		}
		if n := c.Machine("n01").Runtime.Starts(); n < 3*looping {
			t.Errorf("only %d containers were started: they do not loop", n)
		}
	})
}
