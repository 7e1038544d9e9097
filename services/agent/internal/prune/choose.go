package prune

import (
	"cmp"
	"slices"
	"time"

	"github.com/shoalproject/shoal/services/agent/internal/disk"
)

// Image is one that the runtime has.
type Image struct {
	Name  string
	Bytes int64
	Used  bool      // by a container, whosever it is, or by a task that is to have one
	Since time.Time // when it was pulled, or used last
}

// Marks say when images go, and which.
type Marks struct {
	// High is how full the disk is, in percent, from which on images go. 0: never.
	High int
	// Low is how full it is when no more go.
	Low int
	// Keep is how long an image stays that nobody uses.
	Keep time.Duration
}

// Pressed says whether the disk is so full that images go.
func Pressed(d disk.Use, m Marks) bool { return m.High > 0 && d.Percent() >= int64(m.High) }

// Choose names what to remove: those that were not used for the longest time, until the disk is as full as the low mark. Never
// one that is used, or was lately.
func Choose(images []Image, d disk.Use, m Marks, now time.Time) []Image {
	if !Pressed(d, m) {
		return nil
	}
	may := slices.DeleteFunc(slices.Clone(images), func(i Image) bool { return i.Used || now.Sub(i.Since) < m.Keep })
	slices.SortFunc(may, func(a, b Image) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Name, b.Name)) })
	excess := d.Total - d.Free - d.Total/100*int64(m.Low)
	var out []Image
	for _, i := range may {
		if excess <= 0 {
			break
		}
		excess -= i.Bytes
		out = append(out, i)
	}
	return out
}
