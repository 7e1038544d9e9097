// Package guest is the talk between a virtual machine and the machine outside: requests to run a script, and what the
// scripts say. It travels over the virtual machine's serial port, so no network is needed, and none is touched.
//
// The talk is one conversation: one request at a time, and its replies to the end. Serve is the inner end, Run the outer
// one. It must know nothing of tests. A Conversation is for one goroutine at a time.
package guest

import (
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"
)

// request asks for a script to be run by bash, as root.
type request struct {
	Script string `json:"script"`
}

// reply is a piece of what a script wrote, or its end.
type reply struct {
	Output []byte `json:"output,omitempty"`
	Ended  bool   `json:"ended,omitempty"`
	Code   int    `json:"code,omitempty"` // with Ended; 128 and the signal, as a shell has it
	Fault  string `json:"fault,omitempty"`
}

// Conversation is the outer end.
type Conversation struct {
	in  *json.Decoder
	out *json.Encoder
}

// NewConversation begins to talk over a connection.
func NewConversation(port io.ReadWriter) *Conversation {
	return &Conversation{in: json.NewDecoder(port), out: json.NewEncoder(port)}
}

// Run has a script run on the other side and copies what it writes. The connection's end is an error.
func (c *Conversation) Run(script string, output io.Writer) (code int, err error) {
	if err := c.out.Encode(request{Script: script}); err != nil {
		return 0, fmt.Errorf("ask the guest: %w", err)
	}
	for {
		var said reply
		if err := c.in.Decode(&said); err != nil {
			return 0, fmt.Errorf("hear the guest: %w", err)
		}
		if _, err := output.Write(said.Output); err != nil {
			return 0, err
		}
		if said.Fault != "" {
			return 0, fmt.Errorf("the guest: %s", said.Fault)
		}
		if said.Ended {
			return said.Code, nil
		}
	}
}

// Serve runs scripts as they are asked for, until the connection ends.
func Serve(port io.ReadWriter) error {
	in, out := json.NewDecoder(port), json.NewEncoder(port)
	for {
		var asked request
		if err := in.Decode(&asked); err != nil {
			return fmt.Errorf("hear the machine outside: %w", err)
		}
		if err := out.Encode(serve(asked, out)); err != nil {
			return fmt.Errorf("answer the machine outside: %w", err)
		}
	}
}

// leftovers is how long the output of a script is heard that has ended but left processes which hold its output.
const leftovers = time.Second

func serve(asked request, out *json.Encoder) reply {
	command := exec.Command("bash", "-c", asked.Script)
	to := output{out}
	command.Stdout, command.Stderr, command.WaitDelay = to, to, leftovers
	err := command.Run()
	if command.ProcessState == nil {
		return reply{Fault: err.Error()}
	}
	if status, ok := command.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return reply{Ended: true, Code: 128 + int(status.Signal())}
	}
	return reply{Ended: true, Code: command.ProcessState.ExitCode()}
}

// output tells what a script wrote.
type output struct{ *json.Encoder }

func (o output) Write(p []byte) (int, error) { return len(p), o.Encode(reply{Output: p}) }
