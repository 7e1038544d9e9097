// Command guest is the inner end of the talk with a virtual machine: it serves the serial port that it is given.
package main

import (
	"fmt"
	"os"

	"github.com/shoalproject/shoal/test/vm/guest"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("usage: guest PORT")
	}
	port, err := os.OpenFile(os.Args[1], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer port.Close()
	return guest.Serve(port)
}
