package hostinit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Socket is where a host's init listens, as the host sees it.
const Socket = "/run/shoal-lab/init.sock"

// serve answers systemctl and the lab: GET /units, POST /units/{name}/{verb}.
func (s *Supervisor) serve(ctx context.Context) error {
	listener, err := net.Listen("unix", Socket)
	if err != nil {
		return fmt.Errorf("listen for systemctl: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /units", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.Units()) // the caller has hung up
	})
	mux.HandleFunc("POST /units/{name}/{verb}", s.do)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	return server.Serve(listener)
}

func (s *Supervisor) do(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	var err error
	switch verb := r.PathValue("verb"); verb {
	case "enable":
		err = s.Enable(name, true)
	case "disable":
		err = s.Enable(name, false)
	case "start":
		err = s.Start(name)
	case "stop":
		err = s.Stop(name)
	case "restart":
		if err = s.Stop(name); err == nil {
			err = s.Start(name)
		}
	default:
		err = fmt.Errorf("unknown verb %q", verb)
	}
	switch {
	case errors.Is(err, errUnknownUnit):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

// Client speaks to a host's init.
type Client struct{ http *http.Client }

// NewClient returns a client of the init whose socket is at path. From outside that is below
// /proc/<pid of the init>/root.
func NewClient(path string) Client {
	return Client{http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", path)
		},
	}}}
}

// ErrUnknownUnit is what Do returns for a unit that no host has.
var ErrUnknownUnit = errUnknownUnit

// Units lists the host's units.
func (c Client) Units(ctx context.Context) ([]Unit, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://init/units", nil)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the host's init: %w", err)
	}
	defer response.Body.Close()
	var units []Unit
	if err := json.NewDecoder(response.Body).Decode(&units); err != nil {
		return nil, fmt.Errorf("ask the host's init: %w", err)
	}
	return units, nil
}

// Do lets the init enable, disable, start, stop or restart a unit, and waits for the outcome.
func (c Client) Do(ctx context.Context, verb, unit string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://init/units/"+unit+"/"+verb, nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("ask the host's init: %w", err)
	}
	defer response.Body.Close()
	said, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return fmt.Errorf("ask the host's init: %w", err)
	case response.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%w: %s", ErrUnknownUnit, unit)
	case response.StatusCode != http.StatusOK:
		return errors.New(string(said[:max(0, len(said)-1)]))
	}
	return nil
}
