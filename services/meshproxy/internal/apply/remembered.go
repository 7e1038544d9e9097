package apply

import "github.com/shoalproject/shoal/services/meshproxy/internal/kernel"

// withoutLoss leaves out what would take something away. The tables of the file may be seconds older than what is in force: a network
// that has come since would lose its bridge, and its containers with it. What is too much goes when a dispatcher has said so.
func withoutLoss(changes []kernel.Change) []kernel.Change {
	again, sealed := map[kernel.Slot]bool{}, false
	for _, c := range changes {
		if c.Entry != nil && c.Verb == kernel.Add {
			again[c.Entry.Slot] = true
		}
		sealed = sealed || c.Verb == kernel.Remove && (c.Link != nil && c.Link.Seal || c.Entry != nil && c.Entry.Set == kernel.SetSealed)
	}
	var out []kernel.Change
	for _, c := range changes {
		switch {
		case c.Verb == kernel.Remove && c.Entry != nil && again[c.Entry.Slot]: // it has another value
		case c.Verb == kernel.Remove:
			continue
		case c.Rules != nil && sealed: // they would hold nothing back of what must be encrypted
			continue
		}
		out = append(out, c)
	}
	return out
}
