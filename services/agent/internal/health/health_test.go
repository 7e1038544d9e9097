package health_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/encoding/prototext"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/health"
)

// TestScripts: `resolve` merges what service and image say; `looks` plays how looks ended, each at the time at which the
// monitor asks for it.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			parts := strings.Split(d.Input, "\n---\n")
			if d.Cmd == "resolve" {
				return fmt.Sprintln(words(health.Resolve(probe(t, d, parts[0]), probe(t, d, parts[1]))))
			}
			began := time.Unix(1000, 0)
			m := health.New(health.Resolve(probe(t, d, parts[0]), nil), began, d.HasArg("healthy"))
			var out strings.Builder
			now := began
			for _, line := range strings.Split(parts[1], "\n") {
				now = now.Add(m.Wait())
				state := m.Result(line == "ok", strings.TrimPrefix(line, "fails "), now)
				fmt.Fprintf(&out, "%v %s", now.Sub(began), state)
				if state == health.Unhealthy {
					fmt.Fprintf(&out, " (%s)", m.Words())
				}
				out.WriteString("\n")
			}
			return out.String()
		})
	})
}

func probe(t *testing.T, d *datadriven.TestData, text string) *typesv1.Probe {
	t.Helper()
	if strings.TrimSpace(text) == "-" {
		return nil
	}
	p := &typesv1.Probe{}
	if err := prototext.Unmarshal([]byte(text), p); err != nil {
		d.Fatalf(t, "%v", err)
	}
	return p
}

func words(p *typesv1.Probe) string {
	if p == nil {
		return "none"
	}
	how := strings.Join(p.GetTest(), " ")
	if p.GetHttp() != nil || p.GetTcp() != nil {
		how = fmt.Sprintf("http %d, tcp %d", p.GetHttp().GetPort(), p.GetTcp().GetPort())
	}
	return fmt.Sprintf("%s every %v, at first %v, at most %v, %d times, after %v", how, p.GetInterval().AsDuration(),
		p.GetStartInterval().AsDuration(), p.GetTimeout().AsDuration(), p.GetRetries(), p.GetStartPeriod().AsDuration())
}
