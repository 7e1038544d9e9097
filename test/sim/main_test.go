package sim_test

import (
	"io"
	"log"
	"os"
	"testing"
)

// cfssl logs each certificate to package log's default logger, which nobody reads here.
func TestMain(m *testing.M) {
	log.SetOutput(io.Discard)
	os.Exit(m.Run())
}
