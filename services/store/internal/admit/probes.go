package admit

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// maxRetries bounds how long a container may be broken before anybody says so.
const maxRetries = 1000

func (f *Faults) probes(c *typesv1.ContainerSpec) {
	f.probe("healthcheck", c.GetHealthcheck())
	f.probe("readiness", c.GetReadiness())
	if r := c.GetReadiness(); r != nil {
		f.Check(len(r.GetTest()) > 0 || r.GetHttp() != nil || r.GetTcp() != nil, "readiness", "says not what to look at: test, http or tcp")
		f.Check(len(r.GetTest()) != 1 || r.GetTest()[0] != "NONE", "readiness.test", "NONE has no meaning: images have no readiness probe")
	}
	if p := c.GetPreStop(); p != nil {
		f.Check(len(p.GetCommand()) > 0, "pre_stop.command", "is missing")
		f.commandOf("pre_stop.command", p.GetCommand(), false)
	}
}

// probe checks what is said; what is left out is the image's to say, or the default.
func (f *Faults) probe(field string, p *typesv1.Probe) {
	if p == nil {
		return
	}
	ways := 0
	for _, way := range []bool{len(p.GetTest()) > 0, p.GetHttp() != nil, p.GetTcp() != nil} {
		if way {
			ways++
		}
	}
	f.Check(ways <= 1, field, "says several ways to look; take one of test, http and tcp")
	f.commandOf(field+".test", p.GetTest(), true)
	if h := p.GetHttp(); h != nil {
		f.port(field+".http.port", h.GetPort())
		f.Check(h.GetPath() == "" || strings.HasPrefix(h.GetPath(), "/") && !strings.ContainsAny(h.GetPath(), " \r\n"), field+".http.path", "%q must begin with /", h.GetPath())
		for name, value := range h.GetHeaders() {
			f.Check(name != "" && !strings.ContainsAny(name, ": \r\n") && !strings.ContainsAny(value, "\r\n"), field+".http.headers", "%q: %q is no header field", name, value)
		}
	}
	if t := p.GetTcp(); t != nil {
		f.port(field+".tcp.port", t.GetPort())
	}
	none := len(p.GetTest()) == 1 && p.GetTest()[0] == "NONE"
	for name, d := range map[string]*durationpb.Duration{
		"interval": p.GetInterval(), "timeout": p.GetTimeout(), "start_period": p.GetStartPeriod(), "start_interval": p.GetStartInterval(),
	} {
		f.Check(!none || d == nil, field+"."+name, "has no meaning where there is no probe")
		f.Check(d == nil || d.IsValid() && (d.AsDuration() == 0 || d.AsDuration() >= time.Millisecond), field+"."+name, "%s is below 1ms", d.AsDuration())
	}
	f.Check(p.GetRetries() <= maxRetries, field+".retries", "%d is not from 0 to %d", p.GetRetries(), maxRetries)
}

func (f *Faults) commandOf(field string, words []string, none bool) {
	if len(words) == 0 {
		return
	}
	switch first := words[0]; {
	case first == "NONE" && none:
		f.Check(len(words) == 1, field, "NONE stands alone")
	case first == "CMD":
		f.Check(len(words) > 1, field, "CMD needs a command")
	case first == "CMD-SHELL":
		f.Check(len(words) == 2, field, "CMD-SHELL needs one line")
	default:
		f.Add(field, "begins with %q, not with CMD, CMD-SHELL or NONE", first)
	}
}

func (f *Faults) port(field string, n uint32) {
	f.Check(n >= 1 && n <= 65535, field, "%d is not from 1 to 65535", n)
}
