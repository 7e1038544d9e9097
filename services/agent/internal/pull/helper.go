package pull

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Bounds of a credential helper.
const (
	helperTimeout = 15 * time.Second
	helperOutput  = 64 << 10
)

// ask runs a credential helper by Docker's protocol: the registry on its input, a JSON object on its output. A user name of
// "<token>" says that the secret is an identity token. What it prints is in no message.
func ask(ctx context.Context, helper, registry string) (user, secret string, err error) {
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	program := "docker-credential-" + helper
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.Stdin, cmd.WaitDelay = strings.NewReader(registry), time.Second
	out := &limited{most: helperOutput}
	cmd.Stdout = out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", "", fail("%s has not answered for %s within %s", program, registry, helperTimeout)
		}
		return "", "", fail("%s has no login for %s: %w", program, registry, err)
	}
	var said struct{ Username, Secret string }
	if err := json.Unmarshal(out.buf.Bytes(), &said); err != nil || said.Secret == "" {
		return "", "", fail("%s has answered for %s with what is no login", program, registry)
	}
	if said.Username == "<token>" {
		said.Username = ""
	}
	return said.Username, said.Secret, nil
}

// helperError is why a credential helper has given nothing.
type helperError struct{ err error }

func (h *helperError) Error() string { return h.err.Error() }
func (h *helperError) Unwrap() error { return h.err }

func fail(format string, args ...any) error { return &helperError{fmt.Errorf(format, args...)} }

// limited is output up to a bound; more is an error, which ends the program.
type limited struct {
	buf  bytes.Buffer
	most int
}

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	if l.buf.Len()+len(p) > l.most {
		return 0, errors.New("too much output")
	}
	return l.buf.Write(p)
}
