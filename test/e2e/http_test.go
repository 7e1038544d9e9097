package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// answer is what micro says of itself.
type answer struct{ hostname, address, version, caller string }

// ask sends one request on a connection of its own.
func ask(ctx context.Context, address string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return answer{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return answer{}, fmt.Errorf("status %s", resp.Status)
	}
	return parse(resp.Body)
}

func parse(r io.Reader) (answer, error) {
	var a answer
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), "=")
		switch name {
		case "hostname":
			a.hostname = value
		case "address":
			a.address = value
		case "version":
			a.version = value
		case "caller":
			a.caller = value
		}
	}
	if a.hostname == "" {
		return a, fmt.Errorf("no hostname in the answer")
	}
	return a, lines.Err()
}

// counted sends n requests to one address and counts who answered.
func counted(t *testing.T, address string, n int) map[string]int {
	t.Helper()
	by := map[string]int{}
	for range n {
		a, err := ask(t.Context(), address)
		if err != nil {
			t.Fatalf("http://%s: %v", address, err)
		}
		by[a.hostname]++
	}
	return by
}

// load asks several addresses in turn at a steady rate until stopped.
type load struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex // guards below
	sent    int
	failed  int
	gap     time.Duration // the longest time without a good answer
	last    time.Time
	example error
}

const (
	loadPeriod  = 15 * time.Millisecond // 66 a second
	loadTimeout = 2 * time.Second
)

func startLoad(ctx context.Context, addresses ...string) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel, done: make(chan struct{}), last: time.Now()}
	go l.run(ctx, addresses)
	return l
}

func (l *load) run(ctx context.Context, addresses []string) {
	defer close(l.done)
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(loadPeriod)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			l.one(addresses[i%len(addresses)])
		}()
	}
}

func (l *load) one(address string) {
	ctx, cancel := context.WithTimeout(context.Background(), loadTimeout)
	defer cancel()
	_, err := ask(ctx, address)
	l.note(err)
}

// note counts one request.
func (l *load) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	if err != nil {
		l.failed++
		l.example = err
		return
	}
	now := time.Now()
	l.gap = max(l.gap, now.Sub(l.last))
	l.last = now
}

// startKept has a caller for each address that asks again and again on the connection that it has, and makes another when it was told that
// the server closes. No request is sent twice: what the library would try again on a connection that was closed meanwhile is not a POST.
func startKept(ctx context.Context, addresses ...string) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel, done: make(chan struct{}), last: time.Now()}
	go func() {
		defer close(l.done)
		var all sync.WaitGroup
		for _, address := range addresses {
			all.Go(func() { l.keep(ctx, address) })
		}
		all.Wait()
	}()
	return l
}

func (l *load) keep(ctx context.Context, address string) {
	transport := &http.Transport{MaxConnsPerHost: 1}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: loadTimeout}
	for tick := time.NewTicker(loadPeriod); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		resp, err := client.Post("http://"+address+"/slow", "", nil)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			err = errors.Join(err, resp.Body.Close())
		}
		l.note(err)
	}
}

// figures are what a load saw since the last call.
type figures struct {
	sent, failed int
	gap          time.Duration
	example      error
}

func (f figures) String() string {
	return fmt.Sprintf("%d requests, %d failed, longest gap %s", f.sent, f.failed, f.gap.Round(time.Millisecond))
}

// take returns the figures and starts counting afresh.
func (l *load) take() figures {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := figures{l.sent, l.failed, l.gap, l.example}
	l.sent, l.failed, l.gap, l.example = 0, 0, 0, nil
	return f
}

func (l *load) stop() {
	l.cancel()
	<-l.done
}

func published(address string, port int) string { return net.JoinHostPort(address, fmt.Sprint(port)) }
