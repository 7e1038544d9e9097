package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/shoalproject/shoal/test/bench/poll"
)

// answerLimit bounds the wait for what should come.
const answerLimit = 30 * time.Second

// grain is how often a machine is asked: where there are many, all of them together are asked no more often than the processors bear.
func grain(machines int) time.Duration {
	return max(5*time.Millisecond, time.Duration(machines)*time.Millisecond)
}

// appear measures how long after a task counts as running each machine leads to it. A task that is led to before its state has
// come to the store counts as 0.
func (s *site) appear(ctx context.Context) error {
	hosts, err := s.Hosts()
	if err != nil {
		return err
	}
	t := s.r.table(fmt.Sprintf("from a task's RUNNING to an answer at each of %d machines, ms", len(hosts)), "p99 300 ms")
	for i := range s.cfg.tasks {
		name, port := fmt.Sprintf("appear-%d", i), 30600+i
		if _, err := s.shoal(ctx, "service", "create", "--detach", "--name", name, "-p", fmt.Sprintf("%d:%d", port, microPort), s.image); err != nil {
			return err
		}
		came, err := s.answers(ctx, hosts, port)
		if err != nil {
			return err
		}
		running, err := s.running(ctx, name)
		if err != nil {
			return err
		}
		for _, at := range came {
			t.add("machines", max(0, float64(at.Sub(running).Microseconds())/1000), 0)
		}
		if _, err := s.shoal(ctx, "service", "rm", name); err != nil {
			return err
		}
	}
	return nil
}

// running is when the service's task began to run.
func (s *site) running(ctx context.Context, service string) (at time.Time, err error) {
	_, err = poll.Until(ctx, service+" runs", answerLimit, func(ctx context.Context) string {
		task, err := s.taskOf(ctx, service)
		if err != nil || task.Status.State != "running" {
			return fmt.Sprintf("%s %v", task.Status.State, err)
		}
		if at, err = time.Parse(time.RFC3339Nano, task.Status.Timestamp); err != nil {
			return err.Error()
		}
		return ""
	})
	return at, err
}

// answers is when each host first leads to a task.
func (s *site) answers(ctx context.Context, hosts []string, port int) ([]time.Time, error) {
	came, faults := make([]time.Time, len(hosts)), make([]error, len(hosts))
	var all sync.WaitGroup
	for i, host := range hosts {
		all.Go(func() {
			address, err := s.Address(host)
			if err != nil {
				faults[i] = err
				return
			}
			client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
			tick := time.NewTicker(grain(len(hosts)))
			defer tick.Stop()
			for began := time.Now(); time.Since(began) < answerLimit; {
				if resp, err := client.Get(fmt.Sprintf("http://%s:%d/", address, port)); err == nil {
					came[i] = time.Now()
					resp.Body.Close()
					return
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					faults[i] = ctx.Err()
					return
				}
			}
			faults[i] = fmt.Errorf("%s does not answer on port %d within %s", host, port, answerLimit)
		})
	}
	all.Wait()
	return came, errors.Join(faults...)
}
