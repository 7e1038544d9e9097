// Package look takes one look at a container: by a command in it, by HTTP or by TCP in its network.
//
// It owns how a look is done and how its outcome is told; what follows from it is package health's. It must never judge a
// container by what its own machine could not do: then there is an error, and nothing is known. It has no state.
package look

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// maxSaid is how much of what a look says is kept, as with Docker.
const maxSaid = 4096

// Runner runs commands in containers.
type Runner interface {
	// Exec runs a command to its end, and kills it when ctx ends.
	Exec(ctx context.Context, id string, c container.Command, started func() error) (exitCode int32, err error)
}

// Dialer reaches what listens in a container's network.
type Dialer interface {
	Dial(ctx context.Context, id string, to netip.AddrPort) (net.Conn, error)
}

// Once takes one look, within the probe's timeout. Of several addresses one is enough. Said is what a person may want to know.
// An error says that nothing is known.
func Once(ctx context.Context, r Runner, d Dialer, id string, p *typesv1.Probe, addresses []netip.Addr) (ok bool, said string, err error) {
	bounded, cancel := context.WithTimeout(ctx, p.GetTimeout().AsDuration())
	defer cancel()
	switch {
	case p.GetHttp() != nil:
		said, err = each(addresses, p.GetHttp().GetPort(), func(to netip.AddrPort) (string, error) { return page(bounded, d, id, p.GetHttp(), to) })
	case p.GetTcp() != nil:
		said, err = each(addresses, p.GetTcp().GetPort(), func(to netip.AddrPort) (string, error) {
			conn, err := d.Dial(bounded, id, to)
			if err != nil {
				return "", err
			}
			return "", conn.Close()
		})
	default:
		return command(ctx, bounded, r, id, p.GetTest())
	}
	switch {
	case ctx.Err() != nil:
		return false, "", ctx.Err()
	case errors.Is(bounded.Err(), context.DeadlineExceeded):
		return false, "no answer within " + p.GetTimeout().AsDuration().String(), nil
	case errs.Is(err, errs.Unavailable): // this machine could not ask
		return false, "", err
	case err != nil:
		return false, err.Error(), nil
	}
	return true, said, nil
}

func each(addresses []netip.Addr, port uint32, try func(netip.AddrPort) (string, error)) (said string, err error) {
	err = errs.New(errs.Internal, "the container has no address")
	for _, a := range addresses {
		if said, err = try(netip.AddrPortFrom(a, uint16(port))); err == nil {
			return said, nil
		}
	}
	return said, err
}

// page asks by HTTP. Whose certificate it is does not matter: the way never leaves the container.
func page(ctx context.Context, d Dialer, id string, h *typesv1.HTTPProbe, to netip.AddrPort) (string, error) {
	scheme := "http"
	if h.GetTls() {
		scheme = "https"
	}
	url := scheme + "://" + to.String() + "/" + strings.TrimPrefix(h.GetPath(), "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	req.Header.Set("User-Agent", "shoal-probe")
	for name, value := range h.GetHeaders() {
		req.Header.Set(name, value)
		if http.CanonicalHeaderKey(name) == "Host" {
			req.Host = value
		}
	}
	client := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return d.Dial(ctx, id, to) },
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		},
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxSaid)) // words for a person; the status is what counts
	said := strings.TrimSpace("HTTP " + resp.Status + " " + string(body))
	if resp.StatusCode < http.StatusOK || resp.StatusCode >= http.StatusBadRequest {
		return "", errors.New(said)
	}
	return said, nil
}

// command runs a test in the container. Exit code 0 is a success.
func command(ctx, bounded context.Context, r Runner, id string, test []string) (ok bool, said string, err error) {
	out := &head{}
	code, err := r.Exec(bounded, id, container.Command{Args: Args(test), Stdout: out, Stderr: out}, func() error { return nil })
	switch {
	case ctx.Err() != nil:
		return false, "", ctx.Err()
	case errors.Is(bounded.Err(), context.DeadlineExceeded):
		return false, "no end within its timeout", nil
	case errs.Is(err, errs.NotFound): // there is no such program
		return false, err.Error(), nil
	case err != nil:
		return false, "", err
	case code != 0:
		return false, strings.TrimSpace(fmt.Sprintf("exit code %d %s", code, out.String())), nil
	}
	return true, out.String(), nil
}

// Args are the words of a CMD or CMD-SHELL.
func Args(test []string) []string {
	if len(test) == 0 {
		return nil
	}
	if test[0] == "CMD-SHELL" {
		return append([]string{"/bin/sh", "-c"}, test[1:]...)
	}
	return test[1:]
}

// head keeps the beginning of what is written, by output and error output at once.
type head struct {
	mu   sync.Mutex // guards kept
	kept []byte
}

// Write takes all and keeps what there is room for.
func (h *head) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept = append(h.kept, b[:min(len(b), maxSaid-len(h.kept))]...)
	return len(b), nil
}

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.kept)
}
