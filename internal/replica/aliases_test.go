package replica_test

import (
	"google.golang.org/grpc"

	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
)

type (
	callOption  = grpc.CallOption
	watchClient = grpc.ServerStreamingClient[storev1.WatchResponse]
)
