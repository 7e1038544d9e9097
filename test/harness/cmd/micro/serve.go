package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// maxSlow bounds /slow, so that a mistyped number does not hold a connection for days.
const maxSlow = time.Minute

// fetchLimit bounds a lookup and each fetch, maxFetches the fetches of one request.
const (
	fetchLimit = 3 * time.Second
	maxFetches = 100_000
)

type server struct {
	version  string
	hostname string
	draining atomic.Bool
}

func newServer(version string) *server {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "unknown"
	}
	return &server{version: version, hostname: hostname}
}

// answer is what / tells. Address is the container's own address that the request came to.
type answer struct {
	Hostname string `json:"hostname"`
	Address  string `json:"address"`
	Version  string `json:"version"`
	Caller   string `json:"caller"`
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.root)
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /exists", s.exists)
	mux.HandleFunc("/exit", s.exit)
	mux.HandleFunc("/slow", s.slow)
	mux.HandleFunc("GET /env", s.env)
	mux.HandleFunc("GET /lookup", s.lookup)
	mux.HandleFunc("GET /fetch", s.fetch)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *server) root(w http.ResponseWriter, r *http.Request) {
	a := answer{Hostname: s.hostname, Version: s.version, Caller: host(r.RemoteAddr)}
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		a.Address = host(local.String())
	}
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a) // the caller has hung up
		return
	}
	fmt.Fprintf(w, "hostname=%s\naddress=%s\nversion=%s\ncaller=%s\n", a.Hostname, a.Address, a.Version, a.Caller)
}

// host cuts the port off. What cannot be cut is shown whole.
func host(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return hostport
}

func (s *server) health(w http.ResponseWriter, _ *http.Request) {
	if s.draining.Load() {
		http.Error(w, "draining", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// exists answers 200 while a file is there, and 503 while it is not: a probe whose outcome others decide.
func (s *server) exists(w http.ResponseWriter, r *http.Request) {
	if _, err := os.Stat(r.FormValue("file")); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

func (s *server) exit(w http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(orDefault(r.FormValue("code"), "0"))
	if err != nil || code < 0 || code > 255 {
		http.Error(w, "code must be a number from 0 to 255", http.StatusBadRequest)
		return
	}
	fmt.Fprintf(os.Stderr, "micro: exit %d on request\n", code)
	os.Exit(code)
}

func (s *server) slow(w http.ResponseWriter, r *http.Request) {
	ms, err := strconv.Atoi(orDefault(r.FormValue("ms"), "0"))
	if err != nil || ms < 0 || ms > int(maxSlow.Milliseconds()) {
		http.Error(w, fmt.Sprintf("ms must be a number from 0 to %d", maxSlow.Milliseconds()), http.StatusBadRequest)
		return
	}
	select {
	case <-r.Context().Done():
	case <-time.After(time.Duration(ms) * time.Millisecond):
		fmt.Fprintf(w, "hostname=%s\nslept_ms=%d\n", s.hostname, ms)
	}
}

func (s *server) env(w http.ResponseWriter, _ *http.Request) {
	variables := os.Environ()
	slices.Sort(variables)
	fmt.Fprintln(w, strings.Join(variables, "\n"))
}

// lookup tells the addresses of a name, as this container sees it, one a line.
func (s *server) lookup(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), fetchLimit)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, r.FormValue("name"))
	var none *net.DNSError
	switch {
	case errors.As(err, &none) && none.IsNotFound:
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadGateway)
	default:
		slices.Sort(addresses)
		fmt.Fprintln(w, strings.Join(addresses, "\n"))
	}
}

// fetch asks another server, n times on a connection of its own each, and tells how often which answer came.
func (s *server) fetch(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(orDefault(r.FormValue("n"), "1"))
	if err != nil || n < 1 || n > maxFetches {
		http.Error(w, fmt.Sprintf("n must be a number from 1 to %d", maxFetches), http.StatusBadRequest)
		return
	}
	client := &http.Client{Timeout: fetchLimit, Transport: &http.Transport{DisableKeepAlives: true}}
	came := map[string]int{}
	for range n {
		came[fetchOne(r.Context(), client, r.FormValue("url"))]++
	}
	_ = json.NewEncoder(w).Encode(came) // the caller has hung up
}

// fetchOne is the hostname that answered, or the error.
func fetchOne(ctx context.Context, client *http.Client, url string) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "error: " + err.Error()
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return "error: " + err.Error()
	}
	defer resp.Body.Close()
	var a answer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil || resp.StatusCode != http.StatusOK {
		return "error: " + resp.Status
	}
	return a.Hostname
}

func orDefault(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}
