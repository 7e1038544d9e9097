package spec

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// probes defines the flags of both probes and of the command before the stop.
func (f *Flags) probes() {
	f.set.Bool("no-healthcheck", false, "no health check, not even the image's")
	for prefix, what := range map[string]string{"health": "whether a container lives", "ready": "whether a container takes connections"} {
		f.set.String(prefix+"-cmd", "", "line for the shell that says "+what)
		f.set.String(prefix+"-http", "", "page that says "+what+": http://:8080/path; any status from 200 to 399 is a yes")
		f.set.String(prefix+"-tcp", "", "port that says "+what+": it can be connected to")
		f.set.String(prefix+"-interval", "", "time between two looks (default 30s)")
		f.set.String(prefix+"-timeout", "", "longest time of a look (default 30s)")
		f.set.String(prefix+"-retries", "", "failures in a row that count (default 3)")
		f.set.String(prefix+"-start-period", "", "time from the start in which failures do not count")
		f.set.String(prefix+"-start-interval", "", "time between two looks until the first success (default: at most 5s)")
	}
	f.set.String("pre-stop-cmd", "", "line for the shell, run in a container before its stop signal")
	f.set.String("drain-time", "", "time that connections have to end before a container hears of its end (default 0s)")
}

func (f *Flags) applyProbes(c *typesv1.ContainerSpec) {
	f.applyProbe("health", &c.Healthcheck)
	f.applyProbe("ready", &c.Readiness)
	if f.set.Changed("no-healthcheck") {
		if off, _ := f.set.GetBool("no-healthcheck"); off {
			f.faults.Check(!f.any("health-cmd", "health-http", "health-tcp", "health-interval", "health-timeout", "health-retries", "health-start-period", "health-start-interval"),
				"no-healthcheck", "conflicts with the other flags of the health check")
			c.Healthcheck = &typesv1.Probe{Test: []string{"NONE"}}
		} else {
			c.Healthcheck = nil
		}
	}
	f.duration("drain-time", func(d *durationpb.Duration) { c.DrainTime = d })
	if f.set.Changed("pre-stop-cmd") {
		c.PreStop = nil
		if line := f.text("pre-stop-cmd"); line != "" {
			c.PreStop = &typesv1.PreStop{Command: []string{"CMD-SHELL", line}}
		}
	}
}

func (f *Flags) applyProbe(prefix string, to **typesv1.Probe) {
	p := *to
	if p == nil {
		p = &typesv1.Probe{}
	}
	changed := false
	for _, way := range []string{"-cmd", "-http", "-tcp"} {
		if !f.set.Changed(prefix + way) {
			continue
		}
		if !changed {
			p.Test, p.Http, p.Tcp = nil, nil, nil // another way to look takes the place of the one before
		}
		changed = true
		f.faults.Merge(prefix+way, look(p, way, f.text(prefix+way)))
	}
	for flag, set := range map[string]func(*durationpb.Duration){
		"-interval": func(d *durationpb.Duration) { p.Interval = d }, "-timeout": func(d *durationpb.Duration) { p.Timeout = d },
		"-start-period":   func(d *durationpb.Duration) { p.StartPeriod = d },
		"-start-interval": func(d *durationpb.Duration) { p.StartInterval = d },
	} {
		changed = changed || f.set.Changed(prefix+flag)
		f.duration(prefix+flag, set)
	}
	if f.set.Changed(prefix + "-retries") {
		changed = true
		n, _ := f.count(prefix + "-retries")
		p.Retries = uint32(min(n, 1<<31))
	}
	if changed {
		*to = p
	}
}

func look(p *typesv1.Probe, way, text string) error {
	switch {
	case text == "": // none of this kind
	case way == "-cmd":
		p.Test = []string{"CMD-SHELL", text}
	case way == "-tcp":
		n, err := strconv.ParseUint(strings.TrimPrefix(text, ":"), 10, 32)
		if err != nil {
			return errs.New(errs.Invalid, "%q is no port", text)
		}
		p.Tcp = &typesv1.TCPProbe{Port: uint32(n)}
	default:
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() != "" && u.Hostname() != "localhost" && u.Hostname() != net.IPv4(127, 0, 0, 1).String() {
			return errs.New(errs.Invalid, "%q is not http://:PORT/path or https://:PORT/path; it is asked within the container", text)
		}
		n, err := strconv.ParseUint(u.Port(), 10, 32)
		if err != nil {
			return errs.New(errs.Invalid, "%q: the port is missing", text)
		}
		p.Http = &typesv1.HTTPProbe{Port: uint32(n), Path: u.RequestURI(), Tls: u.Scheme == "https"}
	}
	return nil
}
