package state

import (
	"slices"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// LoadLife is how long a dispatcher's Load counts after it was written.
const LoadLife = 90 * time.Second

// LoadOf adds up what all dispatchers tell of a service at a cluster time, and since when the oldest of that holds. It is nil
// when nobody tells anything that still counts.
func LoadOf(s *Snapshot, serviceID string, now time.Time) (sum *typesv1.ServiceLoad, at time.Time) {
	for l := range s.Loads() {
		written := l.GetMeta().GetUpdatedAt().AsTime()
		i := slices.IndexFunc(l.GetServices(), func(x *typesv1.ServiceLoad) bool { return x.GetServiceId() == serviceID })
		if i < 0 || !now.Before(written.Add(LoadLife)) {
			continue
		}
		if sum == nil {
			sum, at = &typesv1.ServiceLoad{ServiceId: serviceID}, written
		}
		if written.Before(at) {
			at = written
		}
		x := l.GetServices()[i]
		sum.Tasks += x.GetTasks()
		sum.NanoCpus += x.GetNanoCpus()
		sum.MemoryBytes += x.GetMemoryBytes()
		sum.MilliConnections += x.GetMilliConnections()
		sum.Machines += x.GetMachines()
	}
	return sum, at
}
