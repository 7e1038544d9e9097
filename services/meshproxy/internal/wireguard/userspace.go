package wireguard

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy/internal/seal"
)

// patience bounds a word with a device's process, and its start: it is long for a machine that is short of processor time.
const patience = 10 * time.Second

// Spawn starts the process of a device, which makes its link, in a session of its own: it outlives this process. It returns when the
// process listens.
func (d Devices) Spawn(ctx context.Context, name string, mtu int) error {
	if err := os.MkdirAll(filepath.Dir(d.socket(name)), 0o750); err != nil {
		return err
	}
	if err := os.Remove(d.socket(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ready, tell, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), d.Program, Verb, name, strconv.Itoa(mtu), d.socket(name))
	cmd.Env, cmd.Dir, cmd.Stderr = []string{}, "/", os.Stderr
	cmd.ExtraFiles = []*os.File{tell}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := errors.Join(cmd.Start(), tell.Close()); err != nil {
		return fmt.Errorf("start %s %s: %w", d.Program, Verb, err)
	}
	if err := ready.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	said, err := bufio.NewReader(ready).ReadString('\n')
	if said = strings.TrimSpace(said); said == "ready" {
		run.Async(context.WithoutCancel(ctx), func(context.Context) (struct{}, error) { return struct{}{}, cmd.Wait() }) // nobody else buries it
		return nil
	}
	err = errors.Join(err, cmd.Process.Kill())
	_ = cmd.Wait() // killed
	if said != "" {
		return errors.New(said)
	}
	return fmt.Errorf("%s %s did not begin: %w", d.Program, Verb, err)
}

// ask reads a device from its process (the configuration protocol of WireGuard, wireguard.com/xplatform).
func (d Devices) ask(name string) (state, error) {
	s := state{peers: map[seal.PublicKey]has{}}
	var key seal.PublicKey
	var peer *has
	keep := func() {
		if peer != nil {
			s.peers[key] = *peer
		}
	}
	err := d.talk(name, "get=1\n\n", func(word, value string) error {
		switch word {
		case "private_key":
			return decode(value, &s.private)
		case "listen_port":
			n, err := strconv.ParseUint(value, 10, 16)
			s.port = uint16(n)
			return err
		case "public_key":
			keep()
			peer = &has{}
			return decode(value, (*[32]byte)(&key))
		case "endpoint":
			a, err := netip.ParseAddrPort(value)
			peer.Endpoint = a
			return err
		case "allowed_ip":
			p, err := netip.ParsePrefix(value)
			peer.Allowed = append(peer.Allowed, p)
			return err
		case "last_handshake_time_sec":
			n, err := strconv.ParseInt(value, 10, 64)
			if n > 0 {
				peer.shook = time.Unix(n, 0)
			}
			return err
		}
		return nil
	})
	keep()
	return s, err
}

// tell changes a device.
func (d Devices) tell(name string, c change) error {
	var b strings.Builder
	b.WriteString("set=1\n")
	if c.private != nil {
		fmt.Fprintf(&b, "private_key=%x\n", *c.private)
	}
	if c.port != nil {
		fmt.Fprintf(&b, "listen_port=%d\n", *c.port)
	}
	for _, p := range c.peers {
		fmt.Fprintf(&b, "public_key=%x\n", p.key)
		if p.remove {
			b.WriteString("remove=true\n")
			continue
		}
		if p.endpoint.IsValid() {
			fmt.Fprintf(&b, "endpoint=%s\n", p.endpoint)
		}
		if p.replace {
			b.WriteString("replace_allowed_ips=true\n")
		}
		for _, a := range p.allowed {
			fmt.Fprintf(&b, "allowed_ip=%s\n", a)
		}
		fmt.Fprintf(&b, "persistent_keepalive_interval=%d\n", int(keepalive.Seconds()))
	}
	b.WriteString("\n")
	return d.talk(name, b.String(), func(string, string) error { return nil })
}

// talk says something and hears the answer line by line.
func (d Devices) talk(name, words string, hear func(word, value string) error) error {
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(context.Background(), "unix", d.socket(name))
	if err != nil {
		return fmt.Errorf("its process does not listen: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(words)); err != nil {
		return err
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		word, value, _ := strings.Cut(lines.Text(), "=")
		if word == "errno" {
			if n, err := strconv.ParseInt(value, 10, 32); err != nil || n != 0 {
				return fmt.Errorf("its process refused: %w", syscall.Errno(max(n, -n)))
			}
			return nil
		}
		if err := hear(word, value); err != nil {
			return fmt.Errorf("its process said no %s: %w", word, err)
		}
	}
	return errors.Join(errors.New("its process ended the conversation"), lines.Err())
}

func decode(text string, into *[32]byte) error {
	if n, err := hex.Decode(into[:], []byte(text)); err != nil || n != len(into) {
		return errors.New("no key of 32 bytes")
	}
	return nil
}
