package relay

import "time"

// Age has links be as if they had carried nothing for so much longer.
func (r *Relay) Age(by time.Duration) {
	for _, l := range r.all() {
		l.post(order{link: func() {
			for _, e := range l.ends {
				if e.link != nil {
					e.link.since = e.link.since.Add(-by)
				}
			}
		}})
	}
}
