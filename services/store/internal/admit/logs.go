package admit

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// The least and the most of the options of the log driver local: those of the agent's logger.
const (
	leastLogSize, mostLogSize = 64 << 10, 1 << 30
	mostLogFiles              = 1000
)

// logDriver checks how output is kept.
func (f *Faults) logDriver(d *typesv1.LogDriver) {
	if d == nil {
		return
	}
	name := d.GetName()
	f.Check(name == "" || name == "local" || name == "journald" || name == "none", "log_driver.name", "%q is not known: there are local, journald and none", name)
	for _, key := range slices.Sorted(maps.Keys(d.GetOptions())) {
		value, field := d.GetOptions()[key], "log_driver.options."+key
		if name != "" && name != "local" {
			f.Add(field, "the driver %s has no options", name)
			continue
		}
		switch key {
		case "max-size", "max-rate":
			n, ok := logSize(value)
			f.Check(ok && n >= leastLogSize, field, "%q is not a size of at least 64k, such as 10m", value)
			f.Check(key == "max-rate" || n <= mostLogSize, field, "%q is more than 1g", value)
		case "max-file":
			n, err := strconv.Atoi(value)
			f.Check(err == nil && n >= 1 && n <= mostLogFiles, field, "%q is not a number from 1 to %d", value, mostLogFiles)
		case "compress":
			_, err := strconv.ParseBool(value)
			f.Check(err == nil, field, "%q is neither true nor false", value)
		default:
			f.Add(field, "is not known: there are max-size, max-file, compress and max-rate")
		}
	}
}

// logSize reads "10m" as Docker does: k, m and g are powers of 1024.
func logSize(text string) (int64, bool) {
	text = strings.TrimSuffix(strings.ToLower(text), "b")
	by := uint(0)
	if i := strings.IndexAny(text, "kmg"); i >= 0 && i == len(text)-1 {
		by = map[byte]uint{'k': 10, 'm': 20, 'g': 30}[text[i]]
		text = text[:i]
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n << by, err == nil && n > 0 && n < 1<<33
}
