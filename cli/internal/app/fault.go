package app

import (
	"errors"
	"fmt"
	"strings"
)

// MaxTries is how often a change is made again because somebody else was faster.
const MaxTries = 3

// Wrap says what was tried, unless the error says so already. Nil stays nil.
func Wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	what := fmt.Sprintf(format, args...)
	if strings.HasPrefix(err.Error(), what) {
		return err
	}
	return fmt.Errorf("%s: %w", what, err)
}

// JoinFaults is errors.Join without the wrapping of a single error.
func JoinFaults(list ...error) error {
	var out []error
	for _, err := range list {
		if err != nil {
			out = append(out, err)
		}
	}
	if len(out) == 1 {
		return out[0]
	}
	return errors.Join(out...)
}
