package spec

import (
	"strconv"

	"google.golang.org/protobuf/types/known/durationpb"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// applyEndpoint changes what a service's name leads to.
func (f *Flags) applyEndpoint(s *typesv1.ServiceSpec) {
	if !f.set.Changed("endpoint-mode") {
		return
	}
	if s.Endpoint == nil {
		s.Endpoint = &typesv1.EndpointSpec{}
	}
	s.Endpoint.Mode = choice(f, "endpoint-mode", []string{"vip", "dnsrr"}, map[string]typesv1.EndpointMode{
		"vip": typesv1.EndpointMode_ENDPOINT_MODE_VIP, "dnsrr": typesv1.EndpointMode_ENDPOINT_MODE_DNSRR,
	})
}

// rollout defines how changes are rolled out, and back.
func (f *Flags) rollout() {
	for what, actions := range map[string]string{"update": "pause, continue or rollback", "rollback": "pause or continue"} {
		f.set.String(what+"-parallelism", "", "slots at once; 0: all (default 1)")
		f.set.String(what+"-delay", "", "wait after each slot")
		f.set.String(what+"-order", "", "stop-first or start-first (default stop-first)")
		f.set.String(what+"-monitor", "", "time in which the end of a new task counts as a failure (default 5s)")
		f.set.String(what+"-failure-action", "", "when too many tasks fail: "+actions+" (default pause)")
		f.set.String(what+"-max-failure-ratio", "", "share of failed tasks above which that is done: 0.1 (default 0)")
		f.set.String(what+"-progress-deadline", "", "time without progress after which that is done; 0: none")
	}
	f.set.Bool("rebalance", false, "keep the tasks evenly placed: move running ones, new first, when nodes come or load shifts")
	f.set.String("max-unavailable", "", "tasks that may be missing at once through updates, drains and the like (default: parallelism of the update; where that is all, 1 for drains and the like)")
}

func (f *Flags) applyRollout(s *typesv1.ServiceSpec) {
	f.applyConfig("update", &s.Update)
	f.applyConfig("rollback", &s.Rollback)
	if f.set.Changed("max-unavailable") {
		if n, ok := f.count("max-unavailable"); ok {
			s.MaxUnavailable = &n
		}
	}
	if f.set.Changed("rebalance") {
		if s.Rebalance == nil {
			s.Rebalance = &typesv1.Rebalance{}
		}
		s.Rebalance.Always, _ = f.set.GetBool("rebalance")
	}
	if f.set.Changed("hold") {
		s.HoldUpdate, _ = f.set.GetBool("hold")
	}
	if on, _ := f.set.GetBool("resume"); on {
		s.ResumeUpdate++
	}
}

func (f *Flags) applyConfig(what string, config **typesv1.UpdateConfig) {
	flag := func(name string) string { return what + "-" + name }
	if !f.any(flag("parallelism"), flag("delay"), flag("order"), flag("monitor"), flag("failure-action"), flag("max-failure-ratio"),
		flag("progress-deadline")) {
		return
	}
	if *config == nil {
		*config = &typesv1.UpdateConfig{}
	}
	u := *config
	if f.set.Changed(flag("parallelism")) {
		if n, ok := f.count(flag("parallelism")); ok {
			u.Parallelism = &n
		}
	}
	f.duration(flag("delay"), func(d *durationpb.Duration) { u.Delay = d })
	f.duration(flag("monitor"), func(d *durationpb.Duration) { u.Monitor = d })
	f.duration(flag("progress-deadline"), func(d *durationpb.Duration) { u.ProgressDeadline = d })
	if f.set.Changed(flag("order")) {
		u.Order = choice(f, flag("order"), []string{"stop-first", "start-first"}, map[string]typesv1.UpdateOrder{
			"stop-first": typesv1.UpdateOrder_UPDATE_ORDER_STOP_FIRST, "start-first": typesv1.UpdateOrder_UPDATE_ORDER_START_FIRST,
		})
	}
	if f.set.Changed(flag("failure-action")) {
		u.FailureAction = choice(f, flag("failure-action"), []string{"pause", "continue", "rollback"}, map[string]typesv1.FailureAction{
			"pause": typesv1.FailureAction_FAILURE_ACTION_PAUSE, "continue": typesv1.FailureAction_FAILURE_ACTION_CONTINUE,
			"rollback": typesv1.FailureAction_FAILURE_ACTION_ROLLBACK,
		})
	}
	if f.set.Changed(flag("max-failure-ratio")) {
		ratio, err := strconv.ParseFloat(f.text(flag("max-failure-ratio")), 32)
		f.faults.Check(err == nil, flag("max-failure-ratio"), "%q is no share, such as 0.1", f.text(flag("max-failure-ratio")))
		u.MaxFailureRatio = float32(ratio)
	}
}
