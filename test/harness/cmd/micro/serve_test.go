package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// reply is what is looked at of a response that was read and closed.
type reply struct {
	code   int
	closes bool // the connection
}

func get(t *testing.T, base, path, accept string) (reply, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", accept)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{code: response.StatusCode, closes: response.Close}, string(text)
}

func TestTellsWhoItIsAndWhoAsked(t *testing.T) {
	micro := newServer("1.2.3")
	micro.hostname = "box"
	server := httptest.NewServer(micro.routes())
	defer server.Close()
	if _, text := get(t, server.URL, "/", "*/*"); text != "hostname=box\naddress=127.0.0.1\nversion=1.2.3\ncaller=127.0.0.1\n" {
		t.Errorf("/ said %q", text)
	}
	_, text := get(t, server.URL, "/", "application/json")
	var got answer
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if got != (answer{Hostname: "box", Address: "127.0.0.1", Version: "1.2.3", Caller: "127.0.0.1"}) {
		t.Errorf("/ said %+v", got)
	}
	if response, _ := get(t, server.URL, "/nowhere", "*/*"); response.code != http.StatusNotFound {
		t.Errorf("an unknown path: %d", response.code)
	}
	if _, text := get(t, server.URL, "/env", "*/*"); !strings.Contains(text, "PATH=") {
		t.Errorf("/env said %q", text)
	}
}

func TestTellsWhetherAFileIsThere(t *testing.T) {
	server := httptest.NewServer(newServer("1").routes())
	defer server.Close()
	for file, want := range map[string]int{t.TempDir(): http.StatusOK, "/nowhere": http.StatusServiceUnavailable} {
		if response, _ := get(t, server.URL, "/exists?file="+file, "*/*"); response.code != want {
			t.Errorf("%s: %d, want %d", file, response.code, want)
		}
	}
}

func TestRefusesWrongNumbers(t *testing.T) {
	server := httptest.NewServer(newServer("1").routes())
	defer server.Close()
	for _, path := range []string{"/exit?code=x", "/exit?code=256", "/slow?ms=-1", "/slow?ms=999999999", "/slow?ms=x"} {
		if response, _ := get(t, server.URL, path, "*/*"); response.code != http.StatusBadRequest {
			t.Errorf("%s: %d", path, response.code)
		}
	}
	start := time.Now()
	if response, _ := get(t, server.URL, "/slow?ms=50", "*/*"); response.code != http.StatusOK || time.Since(start) < 50*time.Millisecond {
		t.Errorf("/slow: %d after %s", response.code, time.Since(start))
	}
}

// TestAnswersWhileItDrains: no request of a client that was told to stay fails, and every client is told to go.
func TestAnswersWhileItDrains(t *testing.T) {
	micro := newServer("1")
	server := httptest.NewServer(micro.routes())
	defer server.Close()
	if response, _ := get(t, server.URL, "/healthz", "*/*"); response.code != http.StatusOK || response.closes {
		t.Errorf("healthy: %d, close %v", response.code, response.closes)
	}
	micro.draining.Store(true)
	if response, text := get(t, server.URL, "/", "*/*"); !response.closes || !strings.Contains(text, "hostname=") {
		t.Errorf("draining: close %v, said %q", response.closes, text)
	}
	if response, _ := get(t, server.URL, "/healthz", "*/*"); response.code != http.StatusServiceUnavailable {
		t.Errorf("draining: /healthz %d", response.code)
	}
}
