package logger

import (
	"context"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/shoalproject/shoal/services/agent/internal/logfile"
)

// journalSocket is where journald listens, by systemd.io/JOURNAL_NATIVE_PROTOCOL.
const journalSocket = "/run/systemd/journal/socket"

// journal is the driver journald: one entry a line, rate-limited by journald itself.
type journal struct {
	socket string
	fields string
	conn   net.Conn
	deaf   time.Time // until when it is left alone
	split  [logfile.Stderr + 1]*logfile.Splitter
}

func newJournal(s Settings) *journal {
	j := &journal{socket: journalSocket}
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(s.Fields)) {
		b.WriteString(k + "=" + strings.ReplaceAll(s.Fields[k], "\n", " ") + "\n")
	}
	j.fields = b.String()
	for _, stream := range []logfile.Stream{logfile.Stdout, logfile.Stderr} {
		j.split[stream] = logfile.NewSplitter(stream)
	}
	return j
}

// Put implements Sink.
func (j *journal) Put(at time.Time, s logfile.Stream, data []byte) {
	records, _ := j.split[s].Split(nil, at, data)
	j.send(s, records)
}

// End implements Sink.
func (j *journal) End(at time.Time, s logfile.Stream) { j.send(s, j.split[s].End(nil, at)) }

// Close implements Sink.
func (j *journal) Close() error {
	if j.conn == nil {
		return nil
	}
	return j.conn.Close()
}

func (j *journal) send(s logfile.Stream, records []byte) {
	priority := "6" // info
	if s == logfile.Stderr {
		priority = "3" // err, as Docker's driver has it
	}
	for line := range logfile.Records(records) {
		// A value may have no newline in this form, and a line has none.
		entry := "MESSAGE=" + string(line.Text) + "\nPRIORITY=" + priority + "\n" + j.fields
		if line.Partial {
			entry += "CONTAINER_PARTIAL_MESSAGE=true\n"
		}
		j.write([]byte(entry))
	}
}

// deafness is how long a journald that did not take a line is left alone: the container must not wait for it line by line.
const deafness = 5 * time.Second

// write tries once more on a new connection: journald may have been restarted. Then the line is journald's loss, not the
// container's wait.
func (j *journal) write(entry []byte) {
	if time.Now().Before(j.deaf) {
		return
	}
	for range 2 {
		if j.conn == nil {
			var d net.Dialer
			conn, err := d.DialContext(context.Background(), "unixgram", j.socket)
			if err != nil {
				return
			}
			j.conn = conn
		}
		_ = j.conn.SetWriteDeadline(time.Now().Add(time.Second)) // fails for no socket
		if _, err := j.conn.Write(entry); err == nil {
			return
		}
		_ = j.conn.Close() // it did not work
		j.conn = nil
	}
	j.deaf = time.Now().Add(deafness)
}
