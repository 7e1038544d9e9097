// Package progress shows a service on its way to what was asked for: how many tasks run, what each slot waits for, and,
// once all run, that they still do a moment later.
//
// It reads and never changes anything. On a terminal it draws over itself; elsewhere it prints only what has changed. A
// Watch belongs to one goroutine.
package progress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

const (
	poll = 150 * time.Millisecond
	// stable is how long all tasks must run before a service counts as converged.
	stable = time.Second
	// maxSlots is the largest service of which each slot has a line, as docker has it.
	maxSlots = 20
	// patience is how long a cluster that cannot answer (it chooses a leader, say) is asked again.
	patience = 30 * time.Second
)

// Services and Tasks are what is read.
type Services interface {
	GetService(context.Context, *controlv1.GetServiceRequest, ...grpc.CallOption) (*controlv1.GetServiceResponse, error)
}

// Tasks are read by service.
type Tasks interface {
	ListTasks(context.Context, *controlv1.ListTasksRequest, ...grpc.CallOption) (*controlv1.ListTasksResponse, error)
}

// Watch follows one service.
type Watch struct {
	Services Services
	Tasks    Tasks
	// Out gets the progress; nil: nobody wants to see it.
	Out io.Writer
	// Terminal says that Out is one.
	Terminal bool
	// Updated says that the person has just made a new version: an update of it that has failed by now is theirs to hear of.
	Updated bool

	screen screen
	why    string // what an update was rolled back for, which its end does not tell
}

// Converge returns when the service has converged and stayed so for a moment, or a job has completed. An update that
// a person holds, and a job that waits for its schedule, are not waited for. Errors: Precondition (the update paused or was
// rolled back, the job failed), NotFound (somebody removed it), the context's end, Unavailable (the cluster does not answer for
// longer than it takes to choose a leader).
func (w *Watch) Converge(ctx context.Context, service string) error {
	w.screen = screen{out: w.Out, terminal: w.Terminal, said: map[slotKey]string{}}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	quiet := time.NewTimer(stable)
	defer quiet.Stop()
	holding, lost := false, time.NewTimer(patience)
	defer lost.Stop()
	for {
		v, err := w.look(ctx, service)
		switch {
		case err != nil && (ctx.Err() != nil || errs.KindOf(err) != errs.Unavailable):
			return endOf(ctx, err)
		case err != nil:
			holding = false // nobody has seen whether it stayed so
			w.screen.note("waiting for the cluster: " + err.Error())
		case v.over:
			w.screen.draw(v)
			w.screen.note(v.note)
			w.screen.end()
			return v.fault
		case v.converged() && holding:
			w.screen.draw(v)
		case v.converged():
			holding = true
			quiet.Reset(stable)
			w.screen.draw(v)
			w.screen.note(fmt.Sprintf("verify: Waiting %s to verify that tasks are stable...", seconds(stable)))
		default:
			holding = false
			w.screen.draw(v)
		}
		if err == nil {
			lost.Reset(patience)
		}
		select {
		case <-tick.C:
		case <-quiet.C:
			if holding {
				if v.fault == nil {
					w.screen.note(fmt.Sprintf("verify: Service %s converged", v.name))
				}
				w.screen.end()
				return v.fault
			}
		case <-lost.C:
			w.screen.end()
			return fmt.Errorf("watch service %q: %w", service, err)
		case <-ctx.Done():
			w.screen.end()
			return ctx.Err()
		}
	}
}

func endOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func seconds(d time.Duration) string {
	if d == time.Second {
		return "1 second"
	}
	return fmt.Sprintf("%d seconds", int(d.Seconds()))
}

func (w *Watch) look(ctx context.Context, service string) (view, error) {
	got, err := w.Services.GetService(ctx, &controlv1.GetServiceRequest{Service: service})
	if err != nil {
		return view{}, err
	}
	tasks, err := All(ctx, w.Tasks, "service="+got.GetService().GetMeta().GetId())
	if err != nil {
		return view{}, err
	}
	svc := got.GetService()
	if svc.GetSpec().GetReplicatedJob() != nil || svc.GetSpec().GetGlobalJob() != nil {
		return jobView(svc, tasks), nil
	}
	return w.viewOf(svc, tasks), nil
}

// All is every page of a list of tasks.
func All(ctx context.Context, client Tasks, filters ...string) ([]*controlv1.ListedTask, error) {
	var out []*controlv1.ListedTask
	req := &controlv1.ListTasksRequest{Filters: filters}
	for {
		resp, err := client.ListTasks(ctx, req)
		if err != nil {
			return nil, err
		}
		out = append(out, resp.GetTasks()...)
		if resp.GetNextPageToken() == "" {
			return out, nil
		}
		if req.GetPageToken() == resp.GetNextPageToken() {
			return nil, errs.New(errs.Internal, "the list of tasks has no end")
		}
		req.PageToken = resp.GetNextPageToken()
	}
}

// Interrupted says that a watch ended because the person asked for it.
func Interrupted(err error) bool { return errors.Is(err, context.Canceled) }
