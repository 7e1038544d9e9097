package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/test/bench/poll"
)

const (
	askLimit = 2 * time.Second
	askers   = 8 // requests at once: the load must not slow what it measures
)

// answers collects who answers on a published port, each time on a connection of its own.
type answers struct {
	client    http.Client
	addresses []string

	mu   sync.Mutex // guards below
	seen map[string]bool
	last error
}

func newAnswers(port uint32, hosts ...string) *answers {
	a := &answers{seen: map[string]bool{}, client: http.Client{
		Transport: &http.Transport{DisableKeepAlives: true}, Timeout: askLimit,
	}}
	for _, h := range hosts {
		a.addresses = append(a.addresses, net.JoinHostPort(h, strconv.Itoa(int(port))))
	}
	return a
}

// different asks until n different containers have answered.
func (a *answers) different(ctx context.Context, n int, within time.Duration) error {
	_, err := poll.Until(ctx, fmt.Sprintf("%d different answers", n), within, func(ctx context.Context) string {
		requests := make([]string, 0, n)
		for i := range n {
			requests = append(requests, a.addresses[i%len(a.addresses)])
		}
		// A failed request is asked again with the next round; the last one's words are told if time runs out.
		_ = run.Each(ctx, askers, requests, a.ask)
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.seen) >= n {
			return ""
		}
		return fmt.Sprintf("%d different, last fault: %v", len(a.seen), a.last)
	})
	return err
}

func (a *answers) ask(ctx context.Context, address string) error {
	who, err := a.who(ctx, address)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.last = err
		return err
	}
	a.seen[who] = true
	return nil
}

func (a *answers) who(ctx context.Context, address string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return "", err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if name, value, _ := strings.Cut(lines.Text(), "="); name == "hostname" {
			return value, nil
		}
	}
	return "", fmt.Errorf("%s: an answer without a hostname (status %s)", address, resp.Status)
}
