package endpoint

import (
	"context"
	"time"
)

// trusted is how long tables are the newest there are without a word of the quorum. It speaks twice a second.
const trusted = 1500 * time.Millisecond

// quorum is whether the quorum is away, as one who makes tables hears it.
type quorum struct {
	view View
	// word is kept until it is closed: one that comes while tables are made must be heard afterwards, however fast they change.
	word  <-chan struct{}
	quiet *time.Timer
	away  bool
}

func newQuorum(view View) *quorum {
	return &quorum{view: view, word: view.Confirmed(), quiet: time.NewTimer(trusted)}
}

// await blocks until there is something to print: another snapshot, or the quorum has gone or come back.
func (q *quorum) await(ctx context.Context, changed <-chan struct{}) error {
	for {
		select { // a word that has come is heard before all else
		case <-q.word:
			if q.heard() {
				return nil
			}
		default:
		}
		select {
		case <-changed:
			return nil
		case <-q.word:
			if q.heard() {
				return nil
			}
		case <-q.quiet.C:
			q.away = true
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// heard notes a word of the quorum, and says whether it was away.
func (q *quorum) heard() (back bool) {
	q.word = q.view.Confirmed()
	q.quiet.Reset(trusted)
	back, q.away = q.away, false
	return back
}
