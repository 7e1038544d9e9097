package data

import (
	"strings"

	"github.com/shoalproject/shoal/internal/errs"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"

	"github.com/shoalproject/shoal/cli/internal/app"
)

// filters are what a volume must match: one value of each key.
type filters map[string][]string

func volumeFilters(l *app.Listing) (filters, error) {
	given, err := l.Checked()
	if err != nil {
		return nil, err
	}
	out := filters{}
	var c errs.Collector
	for _, f := range given {
		key, value, _ := strings.Cut(f, "=")
		switch key {
		case "name", "label", "node", "service", "driver":
		case "dangling":
			c.Check(value == "true" || value == "false", "filter", "dangling is true or false, not %q", value)
		default:
			c.Add("filter", "%q is not known; there is name, label, node, service, driver, dangling", key)
		}
		out[key] = append(out[key], value)
	}
	return out, c.Err("list volumes")
}

func (f filters) pass(v *logsv1.ListedVolume) bool {
	for key, values := range f {
		ok := false
		for _, value := range values {
			ok = ok || match(v, key, value)
		}
		if !ok {
			return false
		}
	}
	return true
}

func match(l *logsv1.ListedVolume, key, value string) bool {
	v := l.GetVolume()
	switch key {
	case "name":
		return strings.Contains(v.GetName(), value)
	case "node":
		return l.GetHostname() == value || l.GetNodeId() == value
	case "service":
		return v.GetService() == value
	case "driver":
		return value == "local"
	case "dangling":
		return (len(v.GetUsers()) == 0) == (value == "true")
	}
	k, want, exact := strings.Cut(value, "=")
	have, there := v.GetLabels()[k]
	return there && (!exact || have == want)
}
