package apply

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// saveEvery bounds how often the file is written while the tables change all the time.
const saveEvery = 5 * time.Second

// saver keeps the file, not too often; but what closes a service to somebody before it is in force: a restart must not open it again.
type saver struct {
	files run.Files
	path  string
	saved *mesh.Model
	next  *mesh.Model // to be saved
	at    time.Time
}

func (s *saver) take(m *mesh.Model) error {
	if m == s.saved {
		return nil
	}
	s.next = m
	if !s.at.IsZero() && time.Since(s.at) < saveEvery {
		return nil
	}
	return s.flush()
}

// before is for a model that is about to be put in force.
func (s *saver) before(m *mesh.Model) error {
	if m == nil || m == s.saved || !m.Closes(s.saved) {
		return nil
	}
	s.next = m
	return s.flush()
}

func (s *saver) flush() error {
	if s.next == nil {
		return nil
	}
	data, err := proto.Marshal(s.next.Whole())
	if err == nil {
		err = s.files.Write(s.path, data, 0o600)
	}
	s.at = time.Now()
	if err == nil {
		s.saved, s.next = s.next, nil
	}
	return err
}
