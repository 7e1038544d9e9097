package health_test

import (
	"net/http/httptest"
	"slices"
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shoalproject/shoal/internal/health"
	"github.com/shoalproject/shoal/internal/testx"
)

func TestAProcessServesWhenAllItsPartsDo(t *testing.T) {
	env := testx.Env(t)
	var told []string
	env.Notify = func(s string) error { told = append(told, s); return nil }
	h := health.New(env)
	check := func(serving bool, waiting ...string) {
		t.Helper()
		resp, err := h.GRPC().Check(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil || (resp.GetStatus() == healthpb.HealthCheckResponse_SERVING) != serving {
			t.Errorf("%v, %v", resp, err)
		}
		if ok, got := h.Serving(); ok != serving || !slices.Equal(got, waiting) {
			t.Errorf("%v %q, wanted %v %q", ok, got, serving, waiting)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("GET", "/healthz", nil))
		if (rec.Code == 200) != serving {
			t.Errorf("/healthz: %d", rec.Code)
		}
	}
	check(true)
	h.Set("store", false, "Waiting for the store at 10.0.0.1:2381")
	h.Set("lease", false, "Waiting for the lease")
	check(false, "lease: Waiting for the lease", "store: Waiting for the store at 10.0.0.1:2381")
	h.Set("store", true, "ignored")
	h.Set("store", true, "")
	check(false, "lease: Waiting for the lease")
	h.Set("lease", true, "")
	check(true)
	if want := []string{
		"STATUS=store: Waiting for the store at 10.0.0.1:2381",
		"STATUS=lease: Waiting for the lease; store: Waiting for the store at 10.0.0.1:2381",
		"STATUS=lease: Waiting for the lease",
		"STATUS=serving",
	}; !slices.Equal(told, want) {
		t.Errorf("the init system was told %q", told)
	}
	if families, err := env.Metrics.Gather(); err != nil || len(families) != 1 || len(families[0].GetMetric()) != 2 {
		t.Errorf("parts in the metric: %v, %v", families, err)
	}
	h.Shutdown()
	if resp, err := h.GRPC().Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || resp.GetStatus() == healthpb.HealthCheckResponse_SERVING {
		t.Errorf("after the end: %v, %v", resp, err)
	}
}
