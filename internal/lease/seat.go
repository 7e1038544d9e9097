package lease

import "time"

// sitting is the number of the lease that this process sits on; 0 while it stands by.
func (s *Seat) sitting() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.number
}

func (s *Seat) seat(number uint64, renewed time.Time) {
	s.mu.Lock()
	s.number, s.renewed = number, renewed
	s.mu.Unlock()
	s.standby.sat = true
	s.metrics.taken.Inc()
	s.env.Log.Info("lease taken", "lease", s.name, "number", number)
}

func (s *Seat) stepDown(reason string) {
	s.mu.Lock()
	number := s.number
	s.number = 0
	s.mu.Unlock()
	s.standby.restart(time.Now())
	s.env.Log.Info("lease lost", "lease", s.name, "number", number, "reason", reason)
}

// holds needs the lock.
func (s *Seat) holds(now time.Time) bool { return s.number != 0 && now.Sub(s.renewed) <= s.ttl }

// publish wakes those who wait on Changed, if Held tells something new.
func (s *Seat) publish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := s.holds(time.Now())
	if held == s.held {
		return
	}
	s.held = held
	close(s.changed)
	s.changed = make(chan struct{})
	s.metrics.held.Set(0)
	if held {
		s.metrics.held.Set(1)
	}
}
