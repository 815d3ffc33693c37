package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"
)

// tlsOptions are the flags of serve and proxy for wss:// and https://.
type tlsOptions struct {
	listen     []string
	cert, key  string
	selfSigned bool
}

func (o *tlsOptions) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&o.listen, "tls-listen", nil, "address to listen on for wss:// and https://, beside --listen; repeatable")
	f.StringVar(&o.cert, "tls-cert", "", "file of the certificate, and those of its issuers behind it, in PEM; SIGHUP reads it and the key again")
	f.StringVar(&o.key, "tls-key", "", "file of the certificate's key, in PEM")
	f.BoolVar(&o.selfSigned, "tls-self-signed", false, "make a certificate at the start, to try TLS out: clients need --insecure or the like")
}

func (o *tlsOptions) check() error {
	for _, a := range o.listen {
		if !isListenAddress(a) {
			return &badValue{flag: "tls-listen", value: a, want: listenForm}
		}
	}
	files := o.cert != "" || o.key != ""
	switch {
	case len(o.listen) == 0 && (files || o.selfSigned):
		return errors.New("a certificate is of no use without an address for it: --tls-listen")
	case files && o.selfSigned:
		return errors.New("--tls-self-signed makes a certificate, --tls-cert and --tls-key bring one: not both")
	case files && (o.cert == "" || o.key == ""):
		return errors.New("--tls-cert and --tls-key belong together")
	case len(o.listen) > 0 && !files && !o.selfSigned:
		return errors.New("--tls-listen needs --tls-cert and --tls-key, or --tls-self-signed to try it out")
	}
	return nil
}

// config is TLS for the server, nil without --tls-listen. reload reads the files
// again, and is nil when there are none.
func (o *tlsOptions) config(log *slog.Logger) (c *tls.Config, reload func(), err error) {
	if len(o.listen) == 0 {
		return nil, nil, nil
	}
	if o.selfSigned {
		cert, names, err := selfSigned(o.listen)
		if err != nil {
			return nil, nil, fmt.Errorf("no certificate can be made: %w", err)
		}
		log.Warn("the certificate is self-signed: nobody can tell this server from another",
			"names", strings.Join(names, " "), "sha256", fmt.Sprintf("%x", sha256.Sum256(cert.Certificate[0])))
		return &tls.Config{Certificates: []tls.Certificate{*cert}}, nil, nil
	}
	var current atomic.Pointer[tls.Certificate]
	load := func() error {
		cert, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return fmt.Errorf("--tls-cert %s with --tls-key %s: %w", o.cert, o.key, err)
		}
		current.Store(&cert)
		if left := time.Until(cert.Leaf.NotAfter); left < 7*24*time.Hour {
			log.Warn("the certificate ends soon, or has ended", "file", o.cert, "not_after", cert.Leaf.NotAfter)
		}
		return nil
	}
	if err := load(); err != nil {
		return nil, nil, err
	}
	reload = func() {
		if err := load(); err != nil {
			log.Error("the certificate stays as it was", "error", err)
			return
		}
		log.Info("certificate read again", "file", o.cert, "not_after", current.Load().Leaf.NotAfter)
	}
	get := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil }
	return &tls.Config{GetCertificate: get}, reload, nil
}

// selfSigned makes a certificate for this machine's loopback, and for the hosts of
// the addresses. names are what it is for.
func selfSigned(addrs []string) (cert *tls.Certificate, names []string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template := x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "wspoll, self-signed"},
		NotBefore:    now.Add(-time.Hour), // clocks differ
		NotAfter:     now.Add(90 * 24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	names = []string{"localhost", "127.0.0.1", "::1"}
	for _, a := range addrs {
		host, _, _ := net.SplitHostPort(a) // checked
		if ip := net.ParseIP(host); host != "" && !ip.IsUnspecified() && !slices.Contains(names, host) {
			names = append(names, host)
		}
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, names, nil
}

// backendTLS is TLS towards backends: the machine's roots, or those of a file in
// PEM, or none.
func backendTLS(caFile string, insecure bool) (*tls.Config, error) {
	c := &tls.Config{InsecureSkipVerify: insecure}
	if caFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, failed(fmt.Errorf("--backend-ca cannot be read: %w", err))
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, failed(fmt.Errorf("--backend-ca %s: no certificate in PEM is in it", caFile))
	}
	return c, nil
}
