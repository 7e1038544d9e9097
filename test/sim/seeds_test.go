package sim_test

import (
	"flag"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/test/sim"
)

// Flags: `go test ./sim -run Seeds -seeds 1000`, others by `-from 1001`, or one seed again by `-seed 17`.
var (
	seedFlag  = flag.Uint64("seed", 0, "run this seed alone")
	fromFlag  = flag.Uint64("from", 1, "the first seed to run")
	seedsFlag = flag.Int("seeds", manySeeds, "how many seeds to run")
)

// Whatever hits a cluster, it ends as it should: nothing acknowledged is lost, states only rise, and all converge.
func TestSeeds(t *testing.T) {
	from, count := *fromFlag, uint64(*seedsFlag)
	if *seedFlag != 0 {
		from, count = *seedFlag, 1
	}
	total := sim.Hits{}
	for seed := from; seed < from+count; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for k, n := range live(t, seed) {
					total[k] += n
				}
			})
		})
	}
	t.Logf("what the faults hit:\n%s", total)
	if count < 20 {
		return
	}
	for _, f := range sim.Faults() {
		if total.Of(f) == 0 {
			t.Errorf("no seed was hit by: %s", f)
		}
	}
}

const (
	hollow  = 8
	strikes = 6
)

// live is one cluster's life under one seed.
func live(t *testing.T, seed uint64) sim.Hits {
	c := sim.New(t, seed, sim.Standard(hollow))
	rand := run.NewRand(seed)
	work := sim.NewWorkload(c, seed)
	chaos := sim.NewChaos(c, seed+1000)
	audit := sim.NewAudit(c, chaos.Touched)
	faults := sim.Faults()
	for i := range strikes {
		work.Some()
		f := faults[rand.IntN(len(faults))]
		if i == 0 {
			f = faults[int(seed)%len(faults)]
		}
		watched := make(chan struct{})
		go func() { // what a person does meanwhile
			defer close(watched)
			work.Some()
			work.Look()
		}()
		chaos.Strike(f)
		<-watched
		time.Sleep(time.Duration(rand.IntN(3000)) * time.Millisecond)
	}
	c.W.Net.Heal()
	work.Settle(90 * time.Second)
	audit.Agree(10 * time.Second)
	work.Answer(audit.Snapshot())
	audit.Report(chaos.Hits)
	return chaos.Hits
}
