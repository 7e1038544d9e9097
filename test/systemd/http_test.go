package systemd

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// ask sends one request to the port of micro on a machine and returns the name of the container that answered.
func (c *cluster) ask(ctx context.Context, name string) (string, error) {
	return c.askPort(ctx, name, 30000)
}

// askPort sends one request on a connection of its own.
func (c *cluster) askPort(ctx context.Context, name string, port int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: c.Dial}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s:%d/", c.Address(name), port), nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(body)) {
		if who, ok := strings.CutPrefix(line, "hostname="); ok && resp.StatusCode == http.StatusOK {
			return strings.TrimSpace(who), nil
		}
	}
	return "", fmt.Errorf("status %s: %q", resp.Status, body)
}

// load asks all machines in turn, at a steady rate, until it is stopped.
type load struct {
	c      *cluster
	cancel context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex // guards below
	sent     int
	failed   map[string]int           // by machine
	gap      map[string]time.Duration // the longest time without a good answer, by machine
	last     map[string]time.Time
	examples []string
}

const loadPeriod = 20 * time.Millisecond

func (c *cluster) startLoad(names ...string) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{
		c: c, cancel: cancel, done: make(chan struct{}),
		failed: map[string]int{}, gap: map[string]time.Duration{}, last: map[string]time.Time{},
	}
	for _, name := range names {
		l.last[name] = time.Now()
	}
	go l.run(ctx, names)
	return l
}

func (l *load) run(ctx context.Context, names []string) {
	defer close(l.done)
	var group sync.WaitGroup
	defer group.Wait()
	tick := time.NewTicker(loadPeriod)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		group.Go(func() { l.one(names[i%len(names)]) })
	}
}

func (l *load) one(name string) {
	began := time.Now()
	_, err := l.c.ask(context.Background(), name)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	if err != nil {
		l.failed[name]++
		if len(l.examples) < 5 {
			l.examples = append(l.examples, fmt.Sprintf("%s at %s: %v", name, began.Format("15:04:05.000"), err))
		}
		return
	}
	l.gap[name] = max(l.gap[name], time.Since(l.last[name]))
	l.last[name] = time.Now()
}

// stop ends the load and returns how many requests failed, and a line about it.
func (l *load) stop() (failed int, report string) {
	l.cancel()
	<-l.done
	for _, n := range l.failed {
		failed += n
	}
	var gaps []string
	for name, gap := range l.gap {
		gaps = append(gaps, fmt.Sprintf("%s %s", name, gap.Round(time.Millisecond)))
	}
	report = fmt.Sprintf("%d requests, %d failed %v; longest time without an answer: %s", l.sent, failed, l.failed, strings.Join(gaps, ", "))
	if len(l.examples) > 0 {
		report += "\n" + strings.Join(l.examples, "\n")
	}
	return failed, report
}
