package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	nearPort = 18004 // of the HAProxy that clients ask
	farPort  = 18005 // of the one on the task's machine
)

// hop asks for a task through two proxies with mutual TLS between them: the meshproxies of m1 and w1, and two HAProxies there
// with the cipher that the meshproxies agree on. Those are asked first: the ratio is to them.
func (s *site) hop(ctx context.Context) error {
	entry, err := s.Address("m1")
	if err != nil {
		return err
	}
	own, err := s.Address("w1")
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "shoal-bench-net-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }() // small files of this run
	near, far, err := s.hopConfigs(folder, entry, own)
	if err != nil {
		return err
	}
	meshproxies := func() (pids []int, err error) {
		for _, host := range []string{"m1", "w1"} {
			pid, fault := s.PID(ctx, host, "meshproxy")
			pids, err = append(pids, pid), errors.Join(err, fault)
		}
		return pids, err
	}
	var haproxies []int
	for _, of := range []struct{ host, config string }{{"w1", far}, {"m1", near}} {
		cmd, err := s.start(ctx, of.host, "haproxy", "-db", "-f", of.config)
		if err != nil {
			return err
		}
		defer end(cmd)
		haproxies = append(haproxies, cmd.Process.Pid)
	}
	url := func(port int) string { return fmt.Sprintf("http://%s:%d/", entry, port) }
	if err := s.await(ctx, "haproxy", "w2", url(nearPort)); err != nil {
		return err
	}
	return s.compare(ctx, "two proxies with mutual TLS between them", "", [2]string{"at or above", "at or above"}, []side{
		{name: "haproxy", host: "w2", url: url(nearPort), processes: func() ([]int, error) { return haproxies, nil }},
		{name: "userspace", host: "w2", url: url(userSpacePort), processes: meshproxies},
	})
}

// hopConfigs writes into folder what the two HAProxies read: the one at entry, and the one at own beside the task.
func (s *site) hopConfigs(folder, entry, own string) (near, far string, err error) {
	pair := filepath.Join(folder, "pair.pem")
	near, far = filepath.Join(folder, "near.cfg"), filepath.Join(folder, "far.cfg")
	both, err := certificate(own)
	if err != nil {
		return "", "", err
	}
	return near, far, errors.Join(
		os.WriteFile(pair, both, 0o600),
		os.WriteFile(near, fmt.Appendf(nil, haproxyTLS+nearConfig, entry, nearPort, own, farPort, pair, pair), 0o600),
		os.WriteFile(far, fmt.Appendf(nil, haproxyTLS+farConfig, own, farPort, pair, pair, s.socket("haproxy")), 0o600),
	)
}

// certificate is one of a machine by its address that vouches for itself, with its key: both proxies show it, and trust it alone.
func certificate(address string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, IPAddresses: []net.IP{net.ParseIP(address)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...), nil
}

const haproxyTLS = `global
  nbthread 2
  maxconn 4000
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
  ssl-default-server-ciphersuites TLS_AES_128_GCM_SHA256
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
`

const nearConfig = `listen near
  bind %s:%d
  server far %s:%d ssl force-tlsv13 verify required ca-file %s crt %s
`

const farConfig = `listen far
  bind %s:%d ssl ssl-min-ver TLSv1.3 verify required ca-file %s crt %s
  server task %s
`
