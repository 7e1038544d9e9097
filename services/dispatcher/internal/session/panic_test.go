package session_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/session"
)

// faulty is any part of a dispatcher, with a fault.
type faulty struct{}

func (faulty) Applied() state.Version                         { panic("private") }
func (faulty) Risen() <-chan struct{}                         { return nil }
func (faulty) Report(string, *dispatcherv1.UsageReport) error { panic("private") }
func (faulty) FetchPayload(context.Context, *storev1.FetchPayloadRequest, ...grpc.CallOption) (*storev1.FetchPayloadResponse, error) {
	panic("private")
}

// unconfirmed is a replica with a fault where it tells of the quorum.
type unconfirmed struct{ session.View }

func (unconfirmed) Confirmed() <-chan struct{} { panic("private") }

// A panic ends the session in which it comes, on whichever goroutine: the machine comes again and hears that it is our fault, no
// more, and our log has where it was.
func TestAPanicEndsTheSessionAndIsLogged(t *testing.T) {
	for _, c := range []struct {
		where   string
		replace func(*session.Parts)
		boots   []string // the last is the one whose session ends
		say     *dispatcherv1.SessionRequest
	}{
		{where: "tellNews", replace: func(p *session.Parts) { p.Barrier = faulty{} }, boots: []string{"b"}},
		{where: "feedOnce", replace: func(p *session.Parts) { p.Payloads = faulty{} }, boots: []string{"b"}},
		{where: "receive", replace: func(p *session.Parts) { p.Usage = faulty{} }, boots: []string{"b"}, say: &dispatcherv1.SessionRequest{
			Message: &dispatcherv1.SessionRequest_Usage{Usage: &dispatcherv1.UsageReport{}},
		}},
		// It waits until the other has been silent for long enough.
		{where: "reassure", replace: func(p *session.Parts) { p.View = unconfirmed{p.View} }, boots: []string{"b", "b2"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			svc := service()
			svc.GetService().Spec.Task.Container.Secrets = []*typesv1.FileReference{{Id: "s", Version: 3}}
			var log bytes.Buffer
			r := newRigOf(t, func(p *session.Parts) {
				c.replace(p)
				p.Env.Log = slog.New(slog.NewTextHandler(&log, nil))
			}, node("n1"), svc, task("t1", "n1", typesv1.TaskState_TASK_STATE_RUNNING))
			var m *machine
			for _, boot := range c.boots {
				m = r.open("n1", boot)
				time.Sleep(100 * time.Millisecond)
			}
			if c.say != nil {
				m.say(c.say)
			}
			select {
			case err := <-m.failed:
				if !errs.Is(err, errs.Internal) || strings.Contains(err.Error(), "private") {
					t.Errorf("%s: the machine hears: %v", c.where, err)
				}
			case <-time.After(30 * time.Second):
				t.Errorf("%s: the session goes on", c.where)
			}
			synctest.Wait()
			if got := log.String(); !strings.Contains(got, "panic=private") || !strings.Contains(got, c.where) {
				t.Errorf("%s: the log does not say so:\n%s", c.where, got)
			}
		})
	}
}
