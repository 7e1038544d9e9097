//go:build chaos

package e2e

import "testing"

// The same with each process dying at each step.
func TestEveryProcessKilledAtEveryStep(t *testing.T) { killedAtEveryStep(t, true) }
