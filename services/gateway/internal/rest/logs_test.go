package rest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/shoalproject/shoal/internal/errs"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

// TestNothingIsWrittenAfterTheEnd: a response that has been given back is another request's, also to a sender that comes late.
func TestNothingIsWrittenAfterTheEnd(t *testing.T) {
	w := httptest.NewRecorder()
	out := &logWriter{ctx: t.Context(), w: w, flush: http.NewResponseController(w)}
	if err := out.Send(&logsv1.LogsResponse{Missing: "first"}); err != nil {
		t.Fatal(err)
	}
	out.end(errs.New(errs.Unavailable, "gone"))
	before := w.Body.String()
	if !strings.Contains(before, "first") || !strings.Contains(before, `"error"`) {
		t.Errorf("the answer is %q", before)
	}
	if err := out.Send(&logsv1.LogsResponse{Missing: "late"}); err == nil || w.Body.String() != before {
		t.Errorf("written after the end (%v): %q", err, w.Body.String())
	}
}
