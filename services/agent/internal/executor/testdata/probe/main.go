// Command probe is the program in the test's image. Its first argument says what it does.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/agent/internal/initd"
)

func main() {
	verb := os.Args[1]
	if verb == "init" {
		os.Exit(initd.Run(os.Args[2:], os.Stderr))
	}
	fmt.Println("probe", verb, os.Getenv("PATH"), os.Getenv("GREETING"), os.Getuid(), os.Getgid())
	switch verb {
	case "exit":
		code, _ := strconv.Atoi(os.Args[2])
		os.Exit(code)
	case "ask": // answers, and ends
		tell(os.Args[2:])
		return
	case "tell": // answers, and goes on
		tell(os.Args[2:])
		fmt.Println("that is all")
	case "orphan": // leaves a process behind that ends, and another process 1 to see it off
		if err := exec.Command("/probe", "parent").Run(); err != nil {
			fmt.Println(err)
		}
		fmt.Println("probe has left an orphan")
	case "parent":
		if err := exec.Command("/probe", "exit", "0").Start(); err != nil {
			fmt.Println(err)
		}
		return
	case "sick": // a look that fails
		fmt.Println("not well")
		os.Exit(1)
	case "serve": // answers one page, on all addresses
		go func() {
			fmt.Println(http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/well" {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
			})))
		}()
	case "say": // lines on both streams
		n, _ := strconv.Atoi(os.Args[2])
		for i := range n {
			fmt.Println("out", i)
			fmt.Fprintln(os.Stderr, "err", i)
		}
		return
	case "tick": // a line every few milliseconds
		beat := time.NewTicker(2 * time.Millisecond)
		for i := 0; ; i++ {
			if _, err := fmt.Println("tick", i); err != nil {
				os.Exit(3)
			}
			<-beat.C
		}
	case "cat": // what it reads, and then how much it was
		n, err := io.Copy(os.Stdout, os.Stdin)
		fmt.Fprintln(os.Stderr, "read", n, err)
		return
	case "where":
		dir, _ := os.Getwd()
		size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		fmt.Println("dir", dir, "size", size, err)
		return
	case "resized": // the terminal's second size
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGWINCH)
		fmt.Println("waits")
		<-c
		size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		fmt.Println("now", size.Col, size.Row, err)
		return
	case "file":
		data, err := os.ReadFile(os.Args[2])
		fmt.Println("file", string(data), err)
		return
	case "polite": // ends with 7 when it is asked to
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGUSR1)
		<-c
		fmt.Println("probe asked to stop")
		os.Exit(7)
	case "deaf": // must be killed
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		for range c {
			fmt.Println("probe does not listen")
		}
	case "eat": // uses up its memory
		var kept [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			kept = append(kept, b)
			_ = kept
		}
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	<-c
}
