package e2e

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalproject/shoal/test/harness/images"
)

// private is a registry that wants a password and has a CA of its own, before that of the lab, which has the images.
type private struct {
	host string // and port
	ca   string // folder with ca.crt

	mu       sync.Mutex // guards all below
	password string
	fault    http.HandlerFunc // answers in its place while it is set
	spoil    func(io.Reader) io.Reader
	asked    []time.Time // the requests that the fault has answered
}

const user = "ada"

// serve makes one at an address of the lab's outer machine, which hosts reach.
func serve(c *cluster) *private {
	c.t.Helper()
	behind, err := c.lab.Registry()
	c.must(err)
	address, _, err := net.SplitHostPort(behind)
	c.must(err)
	p := &private{ca: filepath.Join(c.t.TempDir(), "ca"), password: "first"}
	c.must(images.MakeCertificates(p.ca, []string{address}))
	own, err := tls.LoadX509KeyPair(filepath.Join(p.ca, "server.crt"), filepath.Join(p.ca, "server.key"))
	c.must(err)
	trust, err := images.TrustPool(filepath.Join(c.dir, "registry"))
	c.must(err)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust, MinVersion: tls.VersionTLS12}}
	proxy := &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "https", Host: behind}) },
		ErrorLog: log.New(io.Discard, "", 0), Transport: transport, FlushInterval: -1,
		ModifyResponse: func(r *http.Response) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.spoil != nil && strings.Contains(r.Request.URL.Path, "/blobs/") && r.StatusCode == http.StatusOK {
				r.Body = struct {
					io.Reader
					io.Closer
				}{p.spoil(r.Body), r.Body}
			}
			return nil
		},
	}
	listener, err := tls.Listen("tcp", net.JoinHostPort(address, "0"), &tls.Config{Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS12})
	c.must(err)
	p.host = listener.Addr().String()
	server := &http.Server{Handler: p.before(proxy), ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	c.t.Cleanup(func() { _ = server.Close(); transport.CloseIdleConnections() })
	return p
}

// before lets those pass who know the password, when there is no fault.
func (p *private) before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		name, password, _ := r.BasicAuth()
		allowed, fault := name == user && password == p.password, p.fault
		if fault != nil && allowed {
			p.asked = append(p.asked, time.Now())
		}
		p.mu.Unlock()
		switch {
		case !allowed:
			w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}`, http.StatusUnauthorized)
		case fault != nil:
			fault(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// set changes what it does.
func (p *private) set(f func(p *private)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
	p.asked = nil
}

func (p *private) image(tag string) string { return p.host + "/micro:" + tag }

// says waits until a task of a service says something.
func (c *cluster) says(service, text string) {
	c.t.Helper()
	until(c.t, fmt.Sprintf("%s says %q", service, text), 30*time.Second, func() string {
		said := ""
		for _, r := range c.tasks(service, false) {
			said += r.CurrentState + ": " + r.Error + "\n"
		}
		if strings.Contains(said, text) {
			return ""
		}
		return said + "."
	})
}

// login keeps a login in the cluster.
func (c *cluster) login(p *private, password string) {
	c.t.Helper()
	c.on("m1", "sh", "-c", `printf %s "$1" | shoal registry login -u "$2" --password-stdin "$3"`, "sh", password, user, p.host)
}

// deploy makes a service of one task whose image only machines ask for.
func (c *cluster) deploy(name, image string) {
	c.t.Helper()
	c.shoal("service", "create", "--detach", "--no-resolve-image", "--name", name, "--restart-delay", "500ms", image)
}

// emptied removes the services and their images, so that the next pull begins with nothing.
func (c *cluster) emptied(services ...string) {
	c.t.Helper()
	for _, s := range services {
		c.shoal("service", "rm", s)
	}
	until(c.t, "no container is left", 20*time.Second, func() string { return strings.TrimSpace(containers(c, "m1")) })
	c.on("m1", "sh", "-c", "ctr -n shoal image ls -q | xargs -r ctr -n shoal image rm --sync")
}

// A registry with a password and a CA of its own: what is missing is told on the task, a login makes it run, another password touches
// nothing that runs, and whatever the registry does, the task says so and runs when it is mended.
func TestPrivateRegistry(t *testing.T) {
	c := bring(t, 1, 0)
	p := serve(c)
	c.on("m1", "sh", "-c", "echo 'pull_stall: 2s' >> /etc/shoal/agent.yaml && systemctl restart shoal-agent")
	c.tell([]step{
		{"its CA", func(t *testing.T, c *cluster) {
			c.deploy("web", p.image("1.0.0"))
			c.says("web", p.host+" can't be reached: tls: failed to verify certificate")
			pem, err := os.ReadFile(filepath.Join(p.ca, "ca.crt"))
			c.must(err)
			dir := "/etc/containerd/certs.d/" + p.host
			c.on("m1", "mkdir", "-p", dir)
			c.write("m1", dir+"/ca.crt", string(pem))
			c.write("m1", dir+"/hosts.toml", fmt.Sprintf("server = \"https://%s\"\nca = \"ca.crt\"\n", p.host))
			c.says("web", "wants a login (401); `shoal registry login "+p.host)
		}},
		{"its password", func(t *testing.T, c *cluster) {
			c.login(p, "pass-wrong")
			c.says("web", "does not accept the login that the cluster keeps for it (401)")
			c.login(p, "first")
			c.converged("web", 1, 30*time.Second)
			if all := c.on("m1", "sh", "-c", "cat /var/log/*.log; shoal service inspect web; shoal registry ls --format json"); strings.Contains(all, "pass-wrong") {
				t.Error("a log or an answer has the password")
			}
		}},
		{"another password", func(t *testing.T, c *cluster) {
			before := starts(c, "m1")
			p.set(func(p *private) { p.password = "second" })
			c.login(p, "second")
			c.deploy("next", p.image("1.1.0"))
			c.converged("next", 1, 30*time.Second)
			if now := starts(c, "m1"); !strings.Contains(" "+now+" ", " "+before+" ") {
				t.Errorf("containers %s, were %s", now, before)
			}
		}},
		{"how far it is", func(t *testing.T, c *cluster) {
			c.emptied("web", "next")
			p.set(func(p *private) {
				p.spoil = func(r io.Reader) io.Reader { return &slow{r: r, tick: time.NewTicker(50 * time.Millisecond)} }
			})
			c.deploy("slow", p.image("1.0.0"))
			c.says("slow", " %, ")
			p.set(func(p *private) { p.spoil = nil })
			c.converged("slow", 1, time.Minute)
			c.emptied("slow")
		}},
		{"what it does", func(t *testing.T, c *cluster) { p.faults(t, c) }},
	})
}

// faults has it fail in each way, then mends it.
func (p *private) faults(t *testing.T, c *cluster) {
	hang := make(chan struct{})
	defer close(hang)
	status := func(code int, after string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if after != "" {
				w.Header().Set("Retry-After", after)
			}
			w.WriteHeader(code)
		}
	}
	for _, f := range []struct {
		name, says string
		fault      http.HandlerFunc
		spoil      func(io.Reader) io.Reader
		pause      time.Duration // between two questions
	}{
		{"stalls", "has sent nothing for 2s; tries again in ", func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}, nil, 2 * time.Second},
		{"401", "does not accept the login", status(http.StatusUnauthorized, ""), nil, 0},
		{"429", "asked too often (429); tries again in 3s", status(http.StatusTooManyRequests, "3"), nil, 3 * time.Second},
		{"500", "answers with status 500; tries again in ", status(http.StatusInternalServerError, ""), nil, 0},
		{"corrupt", "does not have the digest that it should have; tries again in ", nil, func(r io.Reader) io.Reader {
			data, _ := io.ReadAll(r)
			data[len(data)/2] ^= 1
			return bytes.NewReader(data)
		}, 0},
	} {
		p.set(func(p *private) { p.fault, p.spoil = f.fault, f.spoil })
		began := time.Now()
		c.deploy("faulty", p.image("1.0.0"))
		c.says("faulty", f.says)
		if f.pause > 0 {
			until(t, f.name+": it is asked again", 30*time.Second, func() string { return p.rested(f.pause) })
		}
		told := time.Since(began)
		p.set(func(p *private) { p.fault, p.spoil = nil, nil })
		took := c.converged("faulty", 1, 40*time.Second)
		t.Logf("%-8s told and looked at after %s, runs %s after it was mended", f.name, told.Round(time.Millisecond), took.Round(time.Millisecond))
		c.emptied("faulty")
	}
}

// rested says that there was such a pause between two of the requests.
func (p *private) rested(pause time.Duration) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	longest := time.Duration(0)
	for i := 1; i < len(p.asked); i++ {
		longest = max(longest, p.asked[i].Sub(p.asked[i-1]))
	}
	if longest < pause {
		return fmt.Sprintf("%d requests, %s between two at most", len(p.asked), longest)
	}
	return ""
}

// slow gives a little at each tick.
type slow struct {
	r    io.Reader
	tick *time.Ticker
}

func (s *slow) Read(b []byte) (int, error) {
	<-s.tick.C
	return s.r.Read(b[:min(len(b), 64<<10)])
}
