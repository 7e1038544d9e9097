// Command micro is the small server that the lab's test images hold: it tells who it is and who asked, and can be made
// slow, wrong or dead on request. HTTP is on port 8000, a TCP echo on 8001, a UDP echo on 8002; 8003, TCP and UDP, tells who
// answers and whom it takes for its caller.
//
// With BUSY_MS it keeps a processor busy for so many milliseconds of each 100.
//
// After SIGTERM it drains for DRAIN_MS milliseconds: it goes on answering, with "Connection: close" and an unhealthy
// /healthz, so that clients move their kept-alive connections elsewhere, and then exits with code 0.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// version is set by the linker.
var version = "dev"

func main() {
	crash := flag.Bool("crash", false, "exit with code 1 right after the start")
	tick := flag.Duration("tick", 0, "say a numbered line, each time when this is over")
	flag.Parse()
	if *tick > 0 {
		count(*tick)
	}
	if *crash {
		fmt.Fprintln(os.Stderr, "micro: this image crashes on purpose")
		os.Exit(1)
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "micro:", err)
		os.Exit(1)
	}
}

// count says a numbered line again and again. It ends when it can't.
func count(pause time.Duration) {
	beat := time.NewTicker(pause)
	for i := 0; ; i++ {
		if _, err := fmt.Printf("tick %d\n", i); err != nil {
			os.Exit(1)
		}
		<-beat.C
	}
}

func run() error {
	drain, err := drainTime(os.Getenv("DRAIN_MS"))
	if err != nil {
		return err
	}
	busy, err := busyTime(os.Getenv("BUSY_MS"))
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	server := newServer(version)
	listener := &http.Server{Addr: ":8000", Handler: server.routes(), ReadHeaderTimeout: 10 * time.Second}

	// HTTP first: who listens is led to at once.
	web, err := new(net.ListenConfig).Listen(ctx, "tcp", listener.Addr)
	if err != nil {
		return err
	}
	// The servers are never waited for: the process ends when it has drained, or at once when one of them fails.
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var group errgroup.Group
	group.Go(func() error { return spin(ctx, busy) })
	for _, serve := range []func() error{
		func() error { return listener.Serve(web) },
		func() error { return echoTCP(":8001") },
		func() error { return echoUDP(":8002") },
		func() error { return tellTCP(":8003") },
		func() error { return tellUDP(":8003") },
	} {
		group.Go(func() error {
			err := serve()
			if !errors.Is(err, http.ErrServerClosed) {
				fail(err)
			}
			return err
		})
	}
	fmt.Printf("micro %s listens on 8000 (HTTP), 8001 (TCP echo), 8002 (UDP echo), 8003 (who calls)\n", version)
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return server.leave(listener, drain)
}

func drainTime(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	ms, err := strconv.Atoi(text)
	if err != nil || ms < 0 {
		return 0, fmt.Errorf("DRAIN_MS is %q; it must be a number of milliseconds, 0 or more", text)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// leave drains and closes. Requests that are still open after the drain get a moment more.
func (s *server) leave(listener *http.Server, drain time.Duration) error {
	// From now on each answer says that its connection closes. Those that are idle stay open meanwhile: a request may be on its way.
	s.draining.Store(true)
	<-time.After(drain)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := listener.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
