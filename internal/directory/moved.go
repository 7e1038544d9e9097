package directory

import "github.com/shoalproject/shoal/internal/errs"

// movedField is the fault that names the dispatcher to go to.
const movedField = "dispatcher"

// Moved is why a dispatcher ends a session or stream that it hands over, or does not take: the one on machine `to` has
// room. Who gets it goes there at once, and elsewhere if it is not there.
func Moved(to string) error {
	return errs.WithFaults(errs.Unavailable, "this dispatcher hands its machines over", errs.Fault{Field: movedField, Reason: to})
}

// MovedTo is the machine id of the dispatcher to go to, empty for any other error.
func MovedTo(err error) string {
	if errs.KindOf(err) != errs.Unavailable {
		return ""
	}
	for _, f := range errs.FaultsOf(err) {
		if f.Field == movedField {
			return f.Reason
		}
	}
	return ""
}
