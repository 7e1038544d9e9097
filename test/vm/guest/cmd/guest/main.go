// Command guest is the inner end of the talk with a virtual machine: it serves the serial port that it is given.
package main

import (
	"errors"
	"fmt"
	"os"
	"time"

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
	port, err := open(os.Args[1])
	if err != nil {
		return err
	}
	defer port.Close()
	return guest.Serve(port)
}

// patience is how long udev may take to name the port: at a later boot this program may be there first.
const patience = time.Minute

// open opens a port as soon as it is there.
func open(path string) (*os.File, error) {
	end, again := time.After(patience), time.NewTicker(100*time.Millisecond)
	defer again.Stop()
	for {
		port, err := os.OpenFile(path, os.O_RDWR, 0)
		if !errors.Is(err, os.ErrNotExist) {
			return port, err
		}
		select {
		case <-end:
			return nil, err
		case <-again.C:
		}
	}
}
