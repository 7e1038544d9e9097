package look_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/look"
)

// box is a container whose network is the test's.
type box struct{}

func (box) Dial(ctx context.Context, _ string, to netip.AddrPort) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", to.String())
}

func (box) Exec(ctx context.Context, _ string, c container.Command, _ func() error) (int32, error) {
	switch c.Args[0] {
	case "well":
		return 0, nil
	case "/bin/sh":
		fmt.Fprint(c.Stdout, strings.Repeat("x", 5000))
		return 3, nil
	case "hangs":
		<-ctx.Done()
		return 0, ctx.Err()
	case "away":
		return 0, errs.New(errs.Unavailable, "the runtime is away")
	}
	return 0, errs.New(errs.NotFound, "exec: %q: executable file not found", c.Args[0])
}

// TestOnce: what counts as a success, what is told of a failure, and what tells nothing.
func TestOnce(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			w.Header().Set("Location", "/bad")
			w.WriteHeader(http.StatusFound)
		case "/bad":
			http.Error(w, "the database is away", http.StatusServiceUnavailable)
		case "/slow":
			<-r.Context().Done()
		case "/who":
			if r.Host != "db" || r.Header.Get("X-Key") != "v" {
				w.WriteHeader(http.StatusForbidden)
			}
		}
	}))
	defer server.Close()
	at := netip.MustParseAddrPort(strings.TrimPrefix(server.URL, "http://"))
	port := uint32(at.Port())
	for _, tc := range []struct {
		name   string
		probe  *typesv1.Probe
		ok     bool
		said   string
		nobody bool // nothing is known
	}{
		{name: "page", probe: &typesv1.Probe{Http: &typesv1.HTTPProbe{Port: port}}, ok: true, said: "HTTP 200 OK"},
		{name: "redirect", probe: &typesv1.Probe{Http: &typesv1.HTTPProbe{Port: port, Path: "/moved"}}, ok: true, said: "HTTP 302"},
		{name: "bad page", probe: &typesv1.Probe{Http: &typesv1.HTTPProbe{Port: port, Path: "/bad"}}, said: "HTTP 503 Service Unavailable the database is away"},
		{name: "slow page", probe: &typesv1.Probe{Http: &typesv1.HTTPProbe{Port: port, Path: "/slow"}}, said: "no answer within 200ms"},
		{name: "headers", probe: &typesv1.Probe{Http: &typesv1.HTTPProbe{Port: port, Path: "/who", Headers: map[string]string{"host": "db", "X-Key": "v"}}}, ok: true},
		{name: "port", probe: &typesv1.Probe{Tcp: &typesv1.TCPProbe{Port: port}}, ok: true},
		{name: "closed port", probe: &typesv1.Probe{Tcp: &typesv1.TCPProbe{Port: 1}}, said: "connection refused"},
		{name: "command", probe: &typesv1.Probe{Test: []string{"CMD", "well"}}, ok: true},
		{name: "shell", probe: &typesv1.Probe{Test: []string{"CMD-SHELL", "false"}}, said: "exit code 3 xxx"},
		{name: "hanging command", probe: &typesv1.Probe{Test: []string{"CMD", "hangs"}}, said: "no end within its timeout"},
		{name: "no such command", probe: &typesv1.Probe{Test: []string{"CMD", "none"}}, said: "not found"},
		{name: "runtime away", probe: &typesv1.Probe{Test: []string{"CMD", "away"}}, nobody: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.probe.Timeout = durationpb.New(200 * time.Millisecond)
			ok, said, err := look.Once(t.Context(), box{}, box{}, "c", tc.probe, []netip.Addr{netip.MustParseAddr("127.0.0.9"), at.Addr()})
			if ok != tc.ok || !strings.Contains(said, tc.said) || (err != nil) != tc.nobody || len(said) > 4200 {
				t.Errorf("%v, %q, %v", ok, said, err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := look.Once(ctx, box{}, box{}, "c", &typesv1.Probe{Test: []string{"CMD", "hangs"}, Timeout: durationpb.New(time.Second)}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a look that is called off: %v", err)
	}
}
