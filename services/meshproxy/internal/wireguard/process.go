package wireguard

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/shoalproject/shoal/internal/run"
)

// Verb begins the arguments of the process of a device: `shoal-meshproxy wireguard NAME MTU SOCKET`.
const Verb = "wireguard"

const (
	// memory is what the collector keeps the process near to: its buffers are of 64 KiB each, however small the packets are.
	memory = 96 << 20
	// report is the descriptor on which the process says that it is ready, or why not.
	report = 3
)

// Main is the process of one device, until its link is removed. It keeps no file: its key is told to it by the meshproxy and stays in
// its memory, which is why it outlives the meshproxy.
func Main(args []string) int {
	debug.SetMemoryLimit(memory)
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	said := os.NewFile(report, "report")
	end := func(err error) int {
		fmt.Fprintln(said, err)
		return 1
	}
	if len(args) != 3 {
		return end(fmt.Errorf("usage: shoal-meshproxy %s NAME MTU SOCKET; the meshproxy starts it", Verb))
	}
	mtu, err := strconv.Atoi(args[1])
	if err != nil {
		return end(fmt.Errorf("MTU %q is no number", args[1]))
	}
	link, err := tun.CreateTUN(args[0], mtu)
	if err != nil {
		return end(fmt.Errorf("make the TUN device %s: %w", args[0], err))
	}
	dev := device.NewDevice(link, conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
	defer dev.Close()
	old := syscall.Umask(0o177)
	l, err := new(net.ListenConfig).Listen(context.Background(), "unix", args[2])
	syscall.Umask(old)
	if err != nil {
		return end(fmt.Errorf("listen: %w", err))
	}
	fmt.Fprintln(said, "ready")
	_ = said.Close() // it has been told
	serve(dev, l)
	return 0
}

// serve answers the meshproxy until the device ends. One conversation at a time: there is one meshproxy.
func serve(dev *device.Device, l net.Listener) {
	ended := run.Async(context.Background(), func(context.Context) (struct{}, error) {
		<-dev.Wait()
		return struct{}{}, l.Close()
	})
	for {
		c, err := l.Accept()
		if err != nil {
			<-ended
			return
		}
		_ = c.SetDeadline(time.Now().Add(patience)) // it is short, or broken
		dev.IpcHandle(c)
	}
}
