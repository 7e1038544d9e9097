package logger

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/shoalproject/shoal/services/agent/internal/logfile"
)

// The drivers.
const (
	Local   = "local"
	Journal = "journald"
	None    = "none"
)

const (
	settingsFile = "driver.json"
	// defaultRate is what a container may write a second before lines are left out: far above what a program means to say.
	defaultRate = 128 << 20
	minSize     = 64 << 10
	maxSize     = 1 << 30
	maxFiles    = 1000
)

// Settings say how the output of one container is kept. They lie in its folder for its logger and for who reads.
type Settings struct {
	Driver  string            `json:"driver"`
	Options map[string]string `json:"options,omitempty"`
	// TTY says that the container has a terminal: all is standard output.
	TTY bool `json:"tty,omitempty"`
	// Fields are what the journal's entries carry.
	Fields map[string]string `json:"fields,omitempty"`
}

// limits are the options of a container, all faults at once.
type limits struct {
	logfile.Limits
	compress bool
	rate     int64 // bytes a second
}

// parse reads the options. The store has refused faults; those of a newer version are told in the log itself.
func (s Settings) parse() (limits, error) {
	l := limits{Limits: logfile.DefaultLimits(), compress: true, rate: defaultRate}
	var faults []error
	check := func(ok bool, key, form string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf("log_driver.options.%s %s", key, fmt.Sprintf(form, args...)))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.Options)) {
		value := s.Options[key]
		switch key {
		case "max-size":
			n, ok := parseSize(value)
			check(ok && n >= minSize && n <= maxSize, key, "%q is not a size from 64k to 1g", value)
			l.FileSize = n
		case "max-file":
			n, err := strconv.Atoi(value)
			check(err == nil && n >= 1 && n <= maxFiles, key, "%q is not a number from 1 to %d", value, maxFiles)
			l.Files = n
		case "compress":
			b, err := strconv.ParseBool(value)
			check(err == nil, key, "%q is neither true nor false", value)
			l.compress = b
		case "max-rate":
			n, ok := parseSize(value)
			check(ok && n >= minSize, key, "%q is not a size a second of at least 64k", value)
			l.rate = n
		default:
			check(false, key, "is no option of this driver")
		}
	}
	if err := errors.Join(faults...); err != nil {
		return limits{Limits: logfile.DefaultLimits(), compress: true, rate: defaultRate}, err
	}
	return l, nil
}

// parseSize reads "10m" as Docker does: k, m and g are powers of 1024.
func parseSize(text string) (int64, bool) {
	text = strings.TrimSuffix(strings.ToLower(text), "b")
	shift := map[string]uint{"k": 10, "m": 20, "g": 30}
	var by uint
	if text != "" {
		if s, ok := shift[text[len(text)-1:]]; ok {
			by, text = s, text[:len(text)-1]
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n << by, err == nil && n > 0 && n < 1<<33
}

// Write puts the settings into a container's folder.
func (s Settings) Write(dir string) error {
	raw, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, settingsFile), raw, 0o600)
}

// ReadSettings reads them. A folder without them is of the driver local.
func ReadSettings(dir string) Settings {
	s := Settings{Driver: Local}
	if raw, err := os.ReadFile(filepath.Join(dir, settingsFile)); err == nil {
		if json.Unmarshal(raw, &s) != nil {
			s = Settings{}
		}
	}
	s.Driver = cmp.Or(s.Driver, Local)
	return s
}
