package doctor_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/finding"
	"github.com/shoalproject/shoal/internal/run"

	"github.com/shoalproject/shoal/cli/internal/doctor"
)

// A machine that was let in and can't reach those that it needs would wait for them without a word.
func TestTheWaysToTheOthers(t *testing.T) {
	for name, c := range map[string]struct {
		machine string
		roles   []authzv1.Role
		spoil   func(p *patient)
		want    string
	}{
		"well":                        {machine: "m1", spoil: func(*patient) {}},
		"no dispatcher":               {machine: "m1", roles: []authzv1.Role{agent, meshproxy}, spoil: func(p *patient) { _ = p.elsewhere.Close() }, want: "fault reach dispatcher"},
		"it is one of its own":        {machine: "m1", spoil: func(p *patient) { _ = p.elsewhere.Close() }, want: "warning reach dispatcher"},
		"one of two, and not its own": {machine: "m7", spoil: func(p *patient) { _ = p.elsewhere.Close() }, want: "warning reach dispatcher"},
		"clock":                       {machine: "m1", spoil: func(p *patient) { p.ahead = time.Minute }, want: "warning clock"},
		"own name is not found":       {machine: "m1", spoil: func(p *patient) { p.unknown = p.env.Host }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, stop := newPatient(t)
				defer stop()
				c.spoil(p)
				roles := c.roles
				if roles == nil {
					roles = p.roles
				}
				var told []string
				for _, f := range p.doctor.Ways(t.Context(), doctor.Patient{Roles: roles, Machine: c.machine}) {
					if f.Grade != finding.OK {
						told = append(told, fmt.Sprintf("%s %s", f.Grade, f.Check))
					}
				}
				if got := strings.Join(told, ", "); got != c.want {
					t.Errorf("told %q, wanted %q", got, c.want)
				}
			})
		})
	}
}

// udp is a network on which one UDP port is taken.
type udp struct {
	run.Network
	taken string
}

func (u udp) ListenPacket(_ context.Context, network, address string) (net.PacketConn, error) {
	if address == u.taken {
		return nil, &net.OpError{Op: "listen", Net: network, Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
	}
	return silent{}, nil
}

type silent struct{ net.PacketConn }

func (silent) Close() error { return nil }

func TestThePortBetweenMachinesIsFree(t *testing.T) {
	for name, c := range map[string]struct {
		taken string
		port  int
		roles []authzv1.Role
		want  string
	}{
		"free":                  {taken: ":1", port: 8477, want: "ok UDP port 8477"},
		"taken":                 {taken: ":8477", port: 8477, want: "fault UDP port 8477"},
		"another one is taken":  {taken: ":8477", port: 4790, want: "ok UDP port 4790"},
		"nobody knows the port": {taken: ":8477", want: "warning UDP port 8477"},
		"who needs no networks": {taken: ":8477", port: 8477, roles: []authzv1.Role{ca}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, stop := newPatient(t)
				defer stop()
				p.doctor.Env.Net = udp{p.env.Net, c.taken}
				if c.roles == nil {
					c.roles = []authzv1.Role{meshproxy}
				}
				found := p.doctor.Preflight(t.Context(), doctor.Patient{Roles: c.roles, DataPort: c.port})
				i := slices.IndexFunc(found, func(f finding.Finding) bool { return strings.HasPrefix(f.Check, "UDP port") })
				if got := c.want; i < 0 != (got == "") || i >= 0 && fmt.Sprintf("%s %s", found[i].Grade, found[i].Check) != got {
					t.Errorf("found %v, wanted %q", found, c.want)
				}
			})
		})
	}
}
