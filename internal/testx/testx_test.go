package testx_test

import (
	"errors"
	"io"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/testx"
)

func TestFilesKeepTheContract(t *testing.T) {
	testx.FilesContract(t, testx.NewFiles(), "/var/lib/shoal")
}

func TestEnvWorksInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		l, err := env.Net.Listen(t.Context(), "tcp", "a:1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := env.Net.Listen(t.Context(), "tcp", "a:1"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("second listen: %v", err)
		}
		go func() {
			c, err := l.Accept()
			if err == nil {
				_, _ = io.Copy(c, c)
				c.Close()
			}
		}()
		c, err := env.Net.Dial(t.Context(), "tcp", "a:1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("hi")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
		c.Close()
		l.Close()
		if _, err := env.Net.Dial(t.Context(), "tcp", "a:1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial after close: %v", err)
		}
		start := time.Now()
		tick := env.Ticker(time.Hour)
		<-tick.C()
		tick.Stop()
		if time.Since(start) != time.Hour {
			t.Error("the ticker is not virtual")
		}
	})
}
