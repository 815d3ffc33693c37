package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gobwas/ws"
)

func TestFlagsOfTLSThatMakeNoSenseAreOneLineAndStatus2(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"--tls-listen 127.0.0.1:0", "--tls-listen needs --tls-cert and --tls-key, or --tls-self-signed to try it out"},
		{"--tls-self-signed", "a certificate is of no use without an address for it: --tls-listen"},
		{"--tls-listen 127.0.0.1:0 --tls-cert a", "--tls-cert and --tls-key belong together"},
		{"--tls-listen 127.0.0.1:0 --tls-cert a --tls-key b --tls-self-signed", "--tls-self-signed makes a certificate, --tls-cert and --tls-key bring one: not both"},
	} {
		for _, command := range []string{"serve", "proxy"} {
			code, stdout, stderr := call(append([]string{command}, strings.Fields(tt.args)...)...)
			if code != exitUsage || stdout != "" || stderr != "wspoll: "+tt.want+"\n" {
				t.Errorf("%s %s: exit %d, stdout %q, stderr\n%s want\nwspoll: %s", command, tt.args, code, stdout, stderr, tt.want)
			}
		}
	}
}

// certificate writes a new self-signed certificate and its key.
func certificate(t *testing.T, cert, key string) *x509.Certificate {
	t.Helper()
	c, _, err := selfSigned(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(c.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, key: {Type: "EC PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func trusting(leaf *x509.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{RootCAs: pool}
}

// echoOver opens a WebSocket connection by TLS and has a text echoed.
func echoOver(t *testing.T, url string, c *tls.Config) net.Conn {
	t.Helper()
	conn, err := tryDial(ws.Dialer{TLSConfig: c}, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	echo(t, conn, "by TLS")
	return conn
}

// urlOf is the URL of the next line that contains part.
func (p *process) urlOf(part string) string {
	p.t.Helper()
	url, _, _ := strings.Cut(p.stdout.next(part), " ")
	return url
}

func TestServeAndProxyByTLSWithACertificateThatIsRenewed(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	first := certificate(t, cert, key)
	files := []string{"--tls-listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key}
	p, _ := serving(t, files...)
	url := p.urlOf("wss://")
	old := echoOver(t, url, trusting(first))

	ca := filepath.Join(dir, "ca.pem")
	b, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca, b, 0o600); err != nil {
		t.Fatal(err)
	}
	px, _ := proxying(t, append(files, "--to", strings.TrimSuffix(url, "/wshandler"), "--backend-ca", ca)...)
	through := px.urlOf("wss://") + "wshandler"
	echoOver(t, through, trusting(first))

	second := certificate(t, cert, key)
	p.signal(syscall.SIGHUP)
	p.stderr.next("certificate read again")
	echoOver(t, url, trusting(second))
	if c, err := tryDial(ws.Dialer{TLSConfig: trusting(first)}, url); err == nil {
		c.Close()
		t.Error("it still has its old certificate")
	}
	echo(t, old, "what is open goes on")
	px.signal(syscall.SIGHUP)
	px.stderr.next("certificate read again")
	// The proxy does not trust what its backend has now.
	_, err = tryDial(ws.Dialer{TLSConfig: trusting(second)}, through)
	if err == nil || !strings.Contains(err.Error(), "502") {
		t.Errorf("through the proxy: %v, want 502", err)
	}
	px.stderr.next("certificate signed by unknown authority")

	if err := os.WriteFile(key, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	p.stderr.next("the certificate stays as it was")
	echoOver(t, url, trusting(second))
	px.stop()
	p.stop()

	p = start(t, append([]string{"serve", "--listen", "127.0.0.1:0"}, files...)...)
	if line := p.stderr.next("wspoll: "); p.wait() != exitFail || !strings.Contains(line, "--tls-key "+key) {
		t.Errorf("a bad key: %q", line)
	}
}

func TestSelfSignedServesPagesAndWebSocket(t *testing.T) {
	p, _ := serving(t, "--tls-listen", "127.0.0.1:0", "--tls-self-signed")
	p.stderr.next("the certificate is self-signed")
	url := p.urlOf("wss://")
	any := &tls.Config{InsecureSkipVerify: true}
	echoOver(t, url, any)
	page := p.urlOf("https://")
	c := http.Client{Transport: &http.Transport{TLSClientConfig: any, ForceAttemptHTTP2: true}}
	defer c.CloseIdleConnections()
	r, err := c.Get(page)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if b, err := io.ReadAll(r.Body); err != nil || r.StatusCode != 200 || r.ProtoMajor != 1 || !bytes.Contains(b, []byte("<html")) {
		t.Errorf("%s %s, %d bytes, %v", r.Proto, r.Status, len(b), err)
	}
	p.stop()
}
