package machine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// undoLimit is how long taking everything back may last; a person has pressed Ctrl-C and waits.
const undoLimit = time.Minute

// undo remembers how to take back what was made.
type undo struct{ steps []step }

type step struct {
	what string
	do   func(ctx context.Context) error
}

// add notes a step before what it takes back is done: half a step must be taken back, too.
func (u *undo) add(what string, do func(ctx context.Context) error) {
	u.steps = append(u.steps, step{what, do})
}

// keep lets all that was made stay, whatever comes.
func (u *undo) keep() { u.steps = nil }

// after takes everything back, last first, if err is one; all steps are tried. It works after ctx has ended, too.
func (u *undo) after(ctx context.Context, err error, tell func(string)) error {
	if err == nil || len(u.steps) == 0 {
		return err
	}
	tell("taking back what was made")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	for _, s := range slices.Backward(u.steps) {
		if fault := s.do(ctx); fault != nil {
			err = errors.Join(err, fmt.Errorf("and this could not be taken back (%s): %w", s.what, fault))
		}
	}
	return err
}
