package rest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalproject/shoal/internal/authz"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

// answers is this process's own part, which counts what reaches it.
type answers struct {
	logsv1.UnimplementedVolumeServiceServer
	logsv1.UnimplementedLogServiceServer
	reached int
}

func (a *answers) Logs() logsv1.LogServiceServer       { return a.UnimplementedLogServiceServer }
func (a *answers) Volumes() logsv1.VolumeServiceServer { return a }
func (a *answers) count() error                        { a.reached++; return nil }
func (a *answers) ListVolumes(context.Context, *logsv1.ListVolumesRequest) (*logsv1.ListVolumesResponse, error) {
	return &logsv1.ListVolumesResponse{}, a.count()
}

func (a *answers) RemoveVolume(context.Context, *logsv1.RemoveVolumeRequest) (*logsv1.RemoveVolumeResponse, error) {
	return &logsv1.RemoveVolumeResponse{}, a.count()
}

// TestVolumesAreAuthorized: what is answered in this process is as closed as what a server answers: nobody without a certificate
// reaches it, and who may look may not remove.
func TestVolumesAreAuthorized(t *testing.T) {
	server, own := grpc.NewServer(), &answers{}
	logsv1.RegisterVolumeServiceServer(server, own)
	rules, err := authz.New(server.GetServiceInfo())
	if err != nil {
		t.Fatal(err)
	}
	handler, err := New(t.Context(), nil, rules, 1<<20, own)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, path string }{{http.MethodGet, "/v1/volumes"}, {http.MethodDelete, "/v1/volumes/db.1.data"}} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), c.method, c.path, http.NoBody))
		if w.Code != http.StatusForbidden || own.reached != 0 {
			t.Errorf("%s %s without a certificate: %d, %d reached", c.method, c.path, w.Code, own.reached)
		}
	}
	v := &volumes{server: own, rules: rules}
	for role, want := range map[authzv1.Role]codes.Code{authzv1.Role_ROLE_VIEWER: codes.PermissionDenied, authzv1.Role_ROLE_OPERATOR: codes.OK} {
		ctx := rpc.WithCaller(t.Context(), rpc.Caller{Principal: identity.ID{Cluster: "c", Role: role, Name: "ann"}})
		if _, err := v.ListVolumes(ctx, &logsv1.ListVolumesRequest{}); err != nil {
			t.Errorf("%s looks: %v", role, err)
		}
		if _, err := v.RemoveVolume(ctx, &logsv1.RemoveVolumeRequest{Name: "x"}); status.Code(err) != want {
			t.Errorf("%s removes: %v, want %s", role, err, want)
		}
	}
	if own.reached != 3 {
		t.Errorf("%d calls came", own.reached)
	}
}
