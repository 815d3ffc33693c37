package proxy

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// watchHealth asks all backends how they are, again and again, until ctx ends.
func (px *Proxy) watchHealth(ctx context.Context) {
	tick := time.NewTicker(px.cfg.HealthEvery)
	defer tick.Stop()
	for {
		var all sync.WaitGroup
		for _, b := range px.table.Load().inUse() {
			all.Go(func() { px.checkHealth(ctx, b) })
		}
		all.Wait()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// inUse are the backends of the routes.
func (t *table) inUse() (all []*backend) {
	seen := map[*backend]bool{}
	for _, r := range t.routes {
		for _, b := range r.to {
			if !seen[b] {
				seen[b] = true
				all = append(all, b)
			}
		}
	}
	return all
}

// checkHealth does a handshake with b, as a client would.
func (px *Proxy) checkHealth(ctx context.Context, b *backend) {
	ctx, cancel := context.WithTimeout(ctx, px.cfg.ConnectTimeout+px.cfg.AnswerTimeout)
	defer cancel()
	if err := b.resolve(); err != nil {
		px.cfg.Log.Debug("the address of a backend was not found", "backend", b.url, "error", err)
	}
	status, err := px.tryHandshake(ctx, b)
	switch {
	case ctx.Err() == context.Canceled:
		return // the proxy ends
	case err == nil && status != 101 && px.cfg.HealthPath != "":
		err = fmt.Errorf("status %d where 101 should be", status)
	case err == nil && status >= 500:
		err = fmt.Errorf("status %d", status)
	}
	was := b.sick.Swap(err != nil)
	switch {
	case err != nil && !was:
		px.cfg.Log.Warn("a backend is not well", "backend", b.url, "error", err)
	case err == nil && was:
		px.cfg.Log.Info("a backend is well again", "backend", b.url)
	}
	if err == nil {
		b.answered()
	}
}

// tryHandshake connects to b and returns the status of its answer.
func (px *Proxy) tryHandshake(ctx context.Context, b *backend) (status int, err error) {
	d := net.Dialer{Timeout: px.cfg.ConnectTimeout}
	conn, err := d.DialContext(ctx, "tcp", b.addr.Load().String())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw := conn
	defer context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })()
	if b.tls != nil {
		conn = tls.Client(conn, b.tls)
	}
	var nonce [16]byte
	rand.Read(nonce[:])
	h := handshake.Hello{
		Host: b.host, Target: cmp.Or(px.cfg.HealthPath, "/"), Key: handshake.AppendKey(nil, nonce),
		Header: []byte("User-Agent: wspoll-proxy-health\r\n"),
	}
	if _, err := conn.Write(handshake.AppendRequest(nil, &h)); err != nil {
		return 0, err
	}
	var r handshake.Response
	in := bufio.NewReaderSize(conn, px.cfg.MaxHead)
	limits := handshake.Limits{Head: px.cfg.MaxHead}
	for want := 1; ; {
		if _, err := in.Peek(want); err != nil {
			return 0, fmt.Errorf("no answer to a handshake: %w", err)
		}
		got, _ := in.Peek(in.Buffered())
		n, err := handshake.ParseResponse(got, &limits, &r)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			want = len(got) + 1
			continue
		}
		if r.Status >= 200 || r.Status == 101 {
			break
		}
		in.Discard(n) // an interim answer
		want = 1
	}
	if r.Status != 101 {
		return r.Status, nil
	}
	if err := r.Check(&h); err != nil {
		return 0, err
	}
	// A proper end, so that the backend's log stays clean.
	if _, err := conn.Write(frame.AppendMaskedClose(nil, newMask(), ws.StatusNormalClosure, "")); err != nil {
		return 0, errors.New("the connection ended right after the handshake")
	}
	return 101, nil
}
