package pull

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoalproject/shoal/services/agent/internal/pull/verdict"
)

// tellEvery is the shortest time between two messages about how far a pull is: each is a status of every task that waits.
const tellEvery = 5 * time.Second

// tellFirst is how long a pull may take of which nobody needs to hear.
const tellFirst = time.Second

// leastRate is what a registry must send while we wait for it, in bytes a second: far below what anybody can use. One that sends less
// would hold a place among the pulls for as long as it likes.
const leastRate = 2 << 10

// errStalled ends a try whose registry is silent, errSlow one whose registry is as good as silent.
var (
	errStalled = errors.New("the registry is silent")
	errSlow    = errors.New("the registry drips")
)

// meter watches one try: what comes, what does not, and what registries say.
type meter struct {
	stall time.Duration
	stop  context.CancelCauseFunc
	tell  func(string)

	mu    sync.Mutex // guards all below
	bytes map[string]*part
	told  time.Time
	said  string
	login bool // was shown
	last  answer
}

// part is one blob.
type part struct {
	desc ocispec.Descriptor
	got  int64
}

// answer is what a registry has said that was no success.
type answer struct {
	code  int
	after time.Duration
}

// wrap puts the meter into a client's way.
func (m *meter) wrap(c *http.Client) error {
	c.Transport = transport{c.Transport, m}
	return nil
}

// shown notes that a registry was shown a login.
func (m *meter) shown(ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.login = m.login || ok
}

// patience ends the try unless it is called off within the longest silence.
func (m *meter) patience() (off func() bool) {
	return time.AfterFunc(m.stall, func() { m.stop(errStalled) }).Stop
}

type transport struct {
	http.RoundTripper
	m *meter
}

// RoundTrip notes answers that are no success; the latest tells why a try has failed.
func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	defer t.m.patience()()
	resp, err := t.RoundTripper.RoundTrip(req)
	if err != nil {
		return resp, err
	}
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	t.m.last = answer{}
	if resp.StatusCode >= http.StatusBadRequest {
		t.m.last = answer{code: resp.StatusCode, after: retryAfter(resp.Header.Get("Retry-After"))}
	}
	resp.Body = &awaited{ReadCloser: resp.Body, m: t.m}
	return resp, nil
}

// awaited is an answer's body: what comes must come in time, whoever reads it. It has one reader.
type awaited struct {
	io.ReadCloser
	m      *meter
	waited time.Duration // since enough has come
	came   int64
}

// Read ends the try when nothing comes, or too little.
func (a *awaited) Read(p []byte) (int, error) {
	off, began := a.m.patience(), time.Now()
	n, err := a.ReadCloser.Read(p)
	off()
	a.waited, a.came = a.waited+time.Since(began), a.came+int64(n)
	switch enough := int64(leastRate * a.m.stall.Seconds()); {
	case a.came >= enough:
		a.waited, a.came = 0, 0
	case a.waited > a.m.stall && err == nil:
		a.m.stop(errSlow)
	}
	return n, err
}

// retryAfter reads seconds; a date, which clocks that differ make worthless, counts as nothing.
func retryAfter(header string) time.Duration {
	seconds, err := strconv.ParseUint(header, 10, 20)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// counted is a resolver whose fetchers are watched.
type counted struct {
	remotes.Resolver
	m *meter
}

// Fetcher implements remotes.Resolver.
func (c counted) Fetcher(ctx context.Context, ref string) (remotes.Fetcher, error) {
	f, err := c.Resolver.Fetcher(ctx, ref)
	if err != nil {
		return nil, err
	}
	return remotes.FetcherFunc(func(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
		c.m.part(desc)
		r, err := f.Fetch(ctx, desc)
		if err != nil {
			return nil, err
		}
		w := watched{r, c.m, desc}
		if s, ok := r.(io.Seeker); ok { // containerd goes on where an earlier try ended
			return seekable{w, s}, nil
		}
		return w, nil
	}), nil
}

type watched struct {
	io.ReadCloser
	m    *meter
	desc ocispec.Descriptor
}

// Read counts.
func (w watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	w.m.got(w.desc, int64(n))
	return n, err
}

type seekable struct {
	watched
	seeker io.Seeker
}

// Seek goes to where an earlier try ended; what it got counts.
func (s seekable) Seek(offset int64, whence int) (int64, error) {
	at, err := s.seeker.Seek(offset, whence)
	if err == nil {
		s.m.mu.Lock()
		s.m.at(s.desc).got = at
		s.m.mu.Unlock()
	}
	return at, err
}

// at is the part of a descriptor; the lock is held.
func (m *meter) at(desc ocispec.Descriptor) *part {
	id := desc.Digest.String()
	if m.bytes[id] == nil {
		m.bytes[id] = &part{desc: desc}
	}
	return m.bytes[id]
}

func (m *meter) part(desc ocispec.Descriptor) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at(desc).got = 0
}

func (m *meter) got(desc ocispec.Descriptor, n int64) {
	m.mu.Lock()
	m.at(desc).got += n
	due := time.Since(m.told) >= tellEvery
	m.mu.Unlock()
	if due {
		m.tellNow()
	}
}

// tellNow says how far it is, if that is news.
func (m *meter) tellNow() {
	m.mu.Lock()
	var done, total int64
	for _, p := range m.bytes {
		done, total = done+p.got, total+p.desc.Size
	}
	words, had := verdict.Progress(done, total), m.said
	m.told, m.said = time.Now(), words
	m.mu.Unlock()
	if words != had {
		m.tell(words)
	}
}

// sizes learns how much there is to get: the layers that an image has and containerd has not.
func (m *meter) sizes(store content.Store) func(images.Handler) images.Handler {
	return func(h images.Handler) images.Handler {
		return images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
			children, err := h.Handle(ctx, desc)
			if err != nil || !images.IsManifestType(desc.MediaType) {
				return children, err
			}
			for _, c := range children {
				if _, err := store.Info(ctx, c.Digest); err != nil {
					m.mu.Lock()
					m.at(c)
					m.mu.Unlock()
				}
			}
			return children, nil
		})
	}
}
