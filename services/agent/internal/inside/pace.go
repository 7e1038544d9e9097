package inside

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/run"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

// readRate bounds the reading of one task's output, so that somebody who reads back gigabytes leaves the machine's network to
// its containers. Unit: bytes a second.
const readRate = 32 << 20

// pace holds a stream to a rate, by the sizes of its messages.
type pace struct {
	rate  int64
	ahead time.Duration // of what was sent, over the time that it should have taken
	last  time.Time
}

// wait waits until what was sent before has had its time.
func (p *pace) wait(ctx context.Context, m *logsv1.ReadLogResponse) error {
	now := time.Now()
	if !p.last.IsZero() {
		p.ahead = max(0, p.ahead-now.Sub(p.last))
	}
	p.last = now
	p.ahead += time.Duration(int64(proto.Size(m)) * int64(time.Second) / p.rate)
	if p.ahead < 50*time.Millisecond { // short enough to make up for later
		return nil
	}
	return run.Sleep(ctx, p.ahead)
}
