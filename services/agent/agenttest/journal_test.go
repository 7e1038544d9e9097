package agenttest

import (
	"testing"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/agent/internal/journal"
	"github.com/shoalproject/shoal/services/agent/internal/journal/journaltest"
)

type medium struct{ *Host }

func (m medium) Open(*testing.T) journal.Journal       { return m.Env(run.Env{}).Journal }
func (m medium) Crash(_ *testing.T, _ journal.Journal) { m.Host.Crash() }

// TestJournalConforms holds the fake to what the real one promises.
func TestJournalConforms(t *testing.T) {
	journaltest.Conform(t, func(*testing.T) journaltest.Medium { return medium{NewHost("h", run.NewRand(1))} })
}
