package autoscale

import (
	"fmt"
	"strings"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Words say how a service scales at a cluster time: "5 tasks, from 2 to 20; cpu 96 % of target by 5 tasks; last scaled 3 → 5:
// cpu 143 % of target". Empty for one that does not scale by its load.
func Words(s *state.Snapshot, svc *typesv1.Service, machines int, now time.Time) string {
	spec := svc.GetSpec().GetAutoscale()
	if spec == nil {
		return ""
	}
	d := begin(s, svc, machines, now)
	parts := []string{fmt.Sprintf("%d tasks, from %d to %d", d.have, spec.GetMin(), spec.GetMax())}
	if d.used || d.counted {
		parts = append(parts, d.told())
	} else {
		parts = append(parts, "no figures, so nothing changes")
	}
	for _, a := range []struct {
		word   string
		advice *typesv1.ScaleAdvice
	}{{"more", svc.GetScale().GetMore()}, {"fewer", svc.GetScale().GetFewer()}} {
		if a.advice != nil {
			parts = append(parts, fmt.Sprintf("%s (%d) are called for since %s", a.word, a.advice.GetReplicas(),
				now.Sub(a.advice.GetSince().AsTime()).Round(time.Second)))
		}
	}
	if r := svc.GetScale().GetReason(); r != "" {
		parts = append(parts, r)
	}
	return strings.Join(parts, "; ")
}

// told are the figures, and by whom.
func (d *decision) told() string {
	var figures, by []string
	for _, w := range d.asks() {
		if w.known {
			figures = append(figures, w.why)
		}
	}
	if d.used {
		by = append(by, fmt.Sprintf("%d tasks", d.load.GetTasks()))
	}
	if d.counted && d.load.GetMachines() >= d.machines { // else the figure says it
		by = append(by, fmt.Sprintf("%d machines", d.machines))
	}
	if len(by) == 0 {
		return strings.Join(figures, ", ")
	}
	return strings.Join(figures, ", ") + " by " + strings.Join(by, " and ")
}
