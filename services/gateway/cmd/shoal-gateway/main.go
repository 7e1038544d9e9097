// Command shoal-gateway translates: it serves people, by REST and gRPC on one port, and passes their calls on with their
// identity. It keeps nothing and holds no rights of its own on what it passes on.
package main

import (
	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/services/gateway"
)

func main() { process.Main("gateway", gateway.DefaultConfig(), gateway.Run) }
