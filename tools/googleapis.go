//go:build tools

// Package tools pins what the build uses beside Go programs: google/api's protos, which come with this module.
package tools

import _ "github.com/grpc-ecosystem/grpc-gateway/utilities"
