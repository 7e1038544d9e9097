// Command probe is the program in the test's image. Its first argument says what it does.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

func main() {
	verb := os.Args[1]
	fmt.Println("probe", verb, os.Getenv("PATH"), os.Getenv("GREETING"), os.Getuid(), os.Getgid())
	switch verb {
	case "exit":
		code, _ := strconv.Atoi(os.Args[2])
		os.Exit(code)
	case "tell": // answers, and goes on
		tell(os.Args[2:])
		fmt.Println("that is all")
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
