package process_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
)

// reloaded is a process whose config and identity a test changes.
type reloaded struct {
	*process.Process
	t     *testing.T
	env   run.Env
	ca    *identitytest.Authority
	asked chan struct{}
	base  config.Base // what the file says now
	fault error       // why it cannot be read

	mu   sync.Mutex // guards below
	told []string
	log  bytes.Buffer
}

// settings is the config of a process that has no keys of its own.
type settings struct {
	config.Base `yaml:",inline"`
}

func (r *reloaded) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

// reload asks once, and returns what the log and the init system have got from it.
func (r *reloaded) reload() (log string, told []string) {
	r.t.Helper()
	r.mu.Lock()
	r.log.Reset()
	r.told = nil
	r.mu.Unlock()
	r.asked <- struct{}{}
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String(), slices.Clone(r.told)
}

// metrics says whether they are served at an address.
func (r *reloaded) metrics(address string) bool {
	conn, err := r.env.Net.Dial(r.t.Context(), "tcp", address)
	if err != nil {
		return false
	}
	defer conn.Close()
	_, err = io.WriteString(conn, "GET /healthz HTTP/1.0\r\n\r\n")
	if err != nil {
		return false
	}
	answer, _ := io.ReadAll(conn)
	return bytes.HasPrefix(answer, []byte("HTTP/1.0 "))
}

func startReloaded(t *testing.T) *reloaded {
	t.Helper()
	r := &reloaded{t: t, env: testx.Env(t), asked: make(chan struct{})}
	r.env.Log = run.AtLevel(slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug})), slog.LevelInfo)
	r.env.Notify = func(state string) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if !strings.HasPrefix(state, "STATUS=") {
			r.told = append(r.told, state)
		}
		return nil
	}
	r.ca = identitytest.New(t, r.env, "c1")
	r.base = install(t, r.env, r.ca, dispRole, "/d")
	r.env.Reload = run.NewReload(r.asked, settings{r.base}, func() (settings, error) { return settings{r.base}, r.fault })
	p, err := process.Open(r.env, r.base, dispRole, 2383)
	if err != nil {
		t.Fatal(err)
	}
	r.Process = p
	ctx, cancel := context.WithCancel(t.Context())
	g := run.NewGroup(r.env.Log)
	p.Go(g)
	done := run.Async(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, g.Wait(ctx) })
	t.Cleanup(func() {
		cancel()
		if end := <-done; end.Err != nil {
			t.Error(end.Err)
		}
	})
	synctest.Wait()
	return r
}

func TestReloadTakesWhatItCanAndNamesTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startReloaded(t)
		r.Env.Log.Debug("not yet")
		r.base.LogLevel, r.base.MetricsListen, r.base.Advertise = "debug", "127.0.0.1:9100", []string{"m2"}
		log, told := r.reload()
		if want := []string{"RELOADING=1", "READY=1"}; !slices.Equal(told, want) {
			t.Errorf("the init system was told %q, wanted %q", told, want)
		}
		if !strings.Contains(log, "keys=[advertise]") || strings.Contains(log, "not yet") {
			t.Errorf("log: %s", log)
		}
		if !r.Env.Log.Enabled(t.Context(), slog.LevelDebug) || !r.metrics("127.0.0.1:9100") {
			t.Error("log_level or metrics_listen is not in force")
		}
		// Back, and to another port.
		r.base.LogLevel, r.base.MetricsListen, r.base.Advertise = "", "127.0.0.1:9200", []string{"m1"}
		if log, _ := r.reload(); !strings.Contains(log, `msg="config taken"`) {
			t.Errorf("log: %s", log)
		}
		if r.metrics("127.0.0.1:9100") || !r.metrics("127.0.0.1:9200") || r.Env.Log.Enabled(t.Context(), slog.LevelDebug) {
			t.Error("metrics did not move, or the level stays")
		}
		r.base.MetricsListen = ""
		r.reload()
		if r.metrics("127.0.0.1:9200") {
			t.Error("metrics are served though the config has no address for them")
		}
	})
}

func TestReloadOfABadFileChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startReloaded(t)
		r.base.LogLevel, r.base.MetricsListen = "debug", "127.0.0.1:9100"
		r.fault = errors.New("listne: unknown key; log_level: no such level")
		log, told := r.reload()
		if !strings.Contains(log, "listne: unknown key; log_level") || !slices.Equal(told, []string{"RELOADING=1", "READY=1"}) {
			t.Errorf("told %q; log: %s", told, log)
		}
		if r.Env.Log.Enabled(t.Context(), slog.LevelDebug) || r.metrics("127.0.0.1:9100") {
			t.Error("a part of a bad file is in force")
		}
		// An address that is taken ends nothing, and the next reload mends it.
		r.fault = nil
		l, err := r.env.Net.Listen(t.Context(), "tcp", "127.0.0.1:9100")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if log, _ := r.reload(); !strings.Contains(log, "metrics not served") {
			t.Errorf("log: %s", log)
		}
		r.base.MetricsListen = "127.0.0.1:9200"
		if r.reload(); !r.metrics("127.0.0.1:9200") {
			t.Error("metrics are not served after a taken address")
		}
	})
}

func TestReloadTakesCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startReloaded(t)
		dir := path.Join("/d", "identity")
		old, replaced := r.Keeper.Certificate(), r.Keeper.Replaced()
		if log, _ := r.reload(); r.Keeper.Certificate() != old || strings.Contains(log, "certificate") {
			t.Errorf("the same certificate was taken as new: %s", log)
		}
		// Somebody else's is refused.
		r.ca.Write(t, r.env, dir, identitytest.Leaf{URIs: []string{r.ca.ID(storeRole, "m1").URI()}})
		if log, _ := r.reload(); r.Keeper.Certificate() != old || !strings.Contains(log, "certificate not taken") {
			t.Errorf("log: %s", log)
		}
		time.Sleep(time.Hour)
		r.ca.Write(t, r.env, dir, identitytest.Leaf{URIs: []string{r.ca.ID(dispRole, "m1").URI()}})
		if log, _ := r.reload(); r.Keeper.Certificate() == old || !strings.Contains(log, "certificate taken") {
			t.Errorf("log: %s", log)
		}
		select {
		case <-replaced:
		default:
			t.Error("connections are not told that there is a new certificate")
		}
	})
}

// A loop that hangs takes the sign of life with it, and one that answers keeps it.
func TestInitSystemHearsNothingOfAProcessWhoseLoopHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signs := func(hangs bool) (n int) {
			env := testx.Env(t)
			env.Watchdog = time.Minute
			env.Notify = func(state string) error {
				if state == "WATCHDOG=1" {
					n++
				}
				return nil
			}
			ca := identitytest.New(t, env, "c1")
			p, err := process.Open(env, install(t, env, ca, dispRole, "/d"), dispRole, 0)
			if err != nil {
				t.Fatal(err)
			}
			p.Alive("loop", func(ctx context.Context) error {
				if hangs {
					<-ctx.Done()
				}
				return ctx.Err()
			})
			g := run.NewGroup(env.Log)
			p.Go(g)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Second)
			defer cancel()
			if err := g.Wait(ctx); err != nil {
				t.Error(err)
			}
			return n
		}
		if n := signs(false); n != 16 {
			t.Errorf("%d signs of life in 5 minutes, wanted 16", n)
		}
		if n := signs(true); n != 0 {
			t.Errorf("%d signs of life of a process whose loop hangs", n)
		}
	})
}
