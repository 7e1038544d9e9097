package images

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"
)

// Order is what a registry process is told, as JSON on its standard input.
type Order struct {
	Listen       string `json:"listen"`       // host:port
	Certificates string `json:"certificates"` // folder with server.crt, server.key and ca.crt
	Images       string `json:"images"`       // OCI layout with what it holds from the start
}

// Serve runs a registry that holds the images, in memory, and takes further ones. It says "ok", or what went wrong, on
// stdout, and blocks until ctx ends.
func Serve(ctx context.Context, stdin io.Reader, stdout io.WriteCloser, logTo io.Writer) error {
	var order Order
	err := json.NewDecoder(stdin).Decode(&order)
	if err != nil {
		return fmt.Errorf("read the registry's order: %w", err)
	}
	listener, server, err := listen(order, log.New(logTo, "", log.LstdFlags))
	if err != nil {
		fmt.Fprintln(stdout, err)
		return errors.Join(err, stdout.Close())
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	group.Go(func() error {
		err := fill(ctx, order)
		if err == nil {
			fmt.Fprintln(stdout, "ok")
		} else {
			fmt.Fprintln(stdout, err)
		}
		return errors.Join(err, stdout.Close())
	})
	return group.Wait()
}

func listen(order Order, to *log.Logger) (net.Listener, *http.Server, error) {
	certificate, err := tls.LoadX509KeyPair(
		filepath.Join(order.Certificates, "server.crt"), filepath.Join(order.Certificates, "server.key"))
	if err != nil {
		return nil, nil, fmt.Errorf("load the registry's certificate: %w", err)
	}
	listener, err := net.Listen("tcp", order.Listen)
	if err != nil {
		return nil, nil, fmt.Errorf("listen for the registry: %w", err)
	}
	return listener, &http.Server{
		Handler: registry.New(registry.Logger(to)), ErrorLog: to, ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
	}, nil
}

// fill pushes the images through the front door, so that "ok" means that TLS, registry and images work together.
func fill(ctx context.Context, order Order) error {
	trust, err := TrustPool(order.Certificates)
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	index, err := layout.ImageIndexFromPath(order.Images)
	if err != nil {
		return fmt.Errorf("read the test images: %w", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return fmt.Errorf("read the test images: %w", err)
	}
	for _, entry := range manifest.Manifests {
		reference, err := name.ParseReference(order.Listen + "/" + Repository + ":" + entry.Annotations[refName])
		if err != nil {
			return err
		}
		image, err := index.ImageIndex(entry.Digest)
		if err != nil {
			return fmt.Errorf("read image %s: %w", reference, err)
		}
		if err := remote.WriteIndex(reference, image, remote.WithContext(ctx), remote.WithTransport(transport)); err != nil {
			return fmt.Errorf("fill the registry with %s: %w", reference, err)
		}
	}
	return nil
}
