package stream

import (
	"context"
	"testing"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
)

// one is a directory of one dispatcher.
type one struct{}

func (one) Entries(authzv1.Role) []*cav1.DirectoryEntry {
	return []*cav1.DirectoryEntry{{MachineId: "d1", Addresses: []string{"10.9.0.1:2383"}}}
}

// TestNobodyDialsWhoStops: a stream that still looks for its dispatcher when the gateway stops opens no connection, which
// nobody would close any more.
func TestNobodyDialsWhoStops(t *testing.T) {
	calls := 0
	d := &dispatchers{directory: one{}, conns: map[string]dialled{}, dial: func(string) (*grpc.ClientConn, error) {
		calls++
		return nil, errs.New(errs.Unavailable, "nobody is there")
	}}
	if _, err := d.at("d1"); calls != 1 {
		t.Fatalf("dialled %d times before: %v", calls, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.run(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := d.at("d1"); !errs.Is(err, errs.Unavailable) || calls != 1 {
		t.Errorf("dialled %d times, %v", calls, err)
	}
}
