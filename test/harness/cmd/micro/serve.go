package main

import (
	"encoding/json"
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
	mux.HandleFunc("/exit", s.exit)
	mux.HandleFunc("/slow", s.slow)
	mux.HandleFunc("GET /env", s.env)
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

func orDefault(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}
