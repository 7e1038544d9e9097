package guest

import (
	"bytes"
	"net"
	"testing"
)

// What a script writes and how it ends arrives; one that leaves a process behind ends all the same, and the next is served.
func TestConversation(t *testing.T) {
	outside, inside := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(inside) }()
	talk := NewConversation(outside)
	for _, c := range []struct {
		script, output string
		code           int
	}{
		{"echo out; echo err >&2", "out\nerr\n", 0},
		{"exit 7", "", 7},
		{"kill -9 $$", "", 137},
		{"sleep 60 & echo $!", "", 0},
		{"echo again", "again\n", 0},
	} {
		var said bytes.Buffer
		code, err := talk.Run(c.script, &said)
		if err != nil || code != c.code || c.output != "" && said.String() != c.output {
			t.Errorf("%s: code %d, said %q, %v", c.script, code, said.String(), err)
		}
		if c.output == "" && said.Len() > 0 { // the process that was left behind
			if _, err := talk.Run("kill "+said.String(), &said); err != nil {
				t.Error(err)
			}
		}
	}
	if err := outside.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err == nil {
		t.Error("the end of the connection is no error")
	}
	if _, err := talk.Run("true", &bytes.Buffer{}); err == nil {
		t.Error("a conversation that has ended runs a script")
	}
}
