// Package health says from one look after another how a container is.
//
// It owns the rules of probes: what counts, when, and how often to look. It is pure: a Monitor hears how looks ended and is
// told the time; it looks at nothing itself: see package look. A Monitor belongs to one goroutine.
package health

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Defaults are Docker's.
const (
	interval      = 30 * time.Second
	timeout       = 30 * time.Second
	startInterval = 5 * time.Second
	retries       = 3
	// firstLook is the wait before the first look; each further one doubles, up to the start interval.
	firstLook = 500 * time.Millisecond
)

// none is the test that says that there is no probe.
const none = "NONE"

// Resolve is the probe of a container: what its service says over what its image says, with defaults. Nil: there is none.
func Resolve(service, image *typesv1.Probe) *typesv1.Probe {
	p := &typesv1.Probe{}
	if service != nil {
		p = proto.CloneOf(service)
	}
	if len(p.GetTest()) == 0 && p.GetHttp() == nil && p.GetTcp() == nil {
		p.Test = image.GetTest()
		// The image's figures are for the image's test.
		if zero(p.GetInterval()) {
			p.Interval = image.GetInterval()
		}
		if zero(p.GetTimeout()) {
			p.Timeout = image.GetTimeout()
		}
		if zero(p.GetStartPeriod()) {
			p.StartPeriod = image.GetStartPeriod()
		}
		if zero(p.GetStartInterval()) {
			p.StartInterval = image.GetStartInterval()
		}
		if p.GetRetries() == 0 {
			p.Retries = image.GetRetries()
		}
	}
	if len(p.GetTest()) == 0 && p.GetHttp() == nil && p.GetTcp() == nil || len(p.GetTest()) > 0 && p.GetTest()[0] == none {
		return nil
	}
	if zero(p.GetInterval()) {
		p.Interval = durationpb.New(interval)
	}
	if zero(p.GetTimeout()) {
		p.Timeout = durationpb.New(timeout)
	}
	if zero(p.GetStartInterval()) {
		p.StartInterval = durationpb.New(min(startInterval, p.GetInterval().AsDuration()))
	}
	if p.GetRetries() == 0 {
		p.Retries = retries
	}
	return p
}

func zero(d *durationpb.Duration) bool { return d.AsDuration() == 0 }

// State is what looks have said.
type State uint8

const (
	// Starting says that no look has succeeded yet, and not enough have failed.
	Starting State = iota
	// Healthy says that the last ones were well.
	Healthy
	// Unhealthy says that as many looks in a row have failed as count.
	Unhealthy
)

// String is the state's name in scripts and words.
func (s State) String() string { return [...]string{"starting", "healthy", "unhealthy"}[s] }

// Monitor draws the conclusion.
type Monitor struct {
	probe    *typesv1.Probe // resolved
	started  time.Time
	state    State
	looks    uint32
	failures uint32
	once     bool // a look has succeeded
	said     string
}

// New begins at the start of the container. A monitor of a container that was found healthy already has seen a success.
func New(resolved *typesv1.Probe, started time.Time, healthy bool) *Monitor {
	m := &Monitor{probe: resolved, started: started, once: healthy}
	if healthy {
		m.state = Healthy
	}
	return m
}

// State is what holds now.
func (m *Monitor) State() State { return m.state }

// Wait is the time until the next look. Until the first success it is shorter, so that a task is RUNNING soon.
func (m *Monitor) Wait() time.Duration {
	if m.once {
		return m.probe.GetInterval().AsDuration()
	}
	return min(firstLook<<min(m.looks, 10), m.probe.GetStartInterval().AsDuration())
}

// Result is how a look ended; output is what it said. It returns the state that holds from then on.
func (m *Monitor) Result(ok bool, output string, now time.Time) State {
	m.looks++
	if ok {
		m.state, m.failures, m.once = Healthy, 0, true
		return m.state
	}
	m.said = strings.TrimSpace(output)
	m.failures++
	patience := m.probe.GetStartPeriod().AsDuration() + time.Duration(m.probe.GetRetries())*m.probe.GetInterval().AsDuration()
	switch {
	case m.once && m.failures >= m.probe.GetRetries():
		m.state = Unhealthy
	case !m.once && now.Sub(m.started) >= patience:
		m.state = Unhealthy // quick looks make no patience shorter
	}
	return m.state
}

// Words tell a person why it is not well.
func (m *Monitor) Words() string {
	times := fmt.Sprintf("failed %d times in a row", m.failures)
	if m.failures == 1 {
		times = "failed"
	}
	if m.said == "" {
		return times
	}
	return times + ": " + m.said
}
