package server

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// PublishConfig is for publishing over HTTP.
type PublishConfig struct {
	// Token is what a request must bring as "Authorization: Bearer TOKEN".
	// Empty means that nobody may publish over HTTP, nor see the topics.
	Token string
	// Rate bounds the publishes per second, of all requests together; as many
	// may come at once. 0 means no bound. Above it: 429.
	Rate float64
}

// MountHTTP puts two requests on the server's Mux:
//
//	POST /topics/NAME   publishes the body: as text, unless its Content-Type is
//	                    application/octet-stream; answers with a Published in JSON,
//	                    200, or 202 while it is Waiting
//	GET /topics         answers with the []TopicInfo of List in JSON
//
// Both need the token. Pages in browsers must be of an origin from which a
// WebSocket could be opened. Errors are one line of text: 400 for a name or a
// text that cannot be, 401 for the token, 403 for the origin, 413 for the
// size, 429 for the rate, 503 when the message cannot be taken now.
func (tp *Topics) MountHTTP(cfg PublishConfig) {
	h := &publishing{topics: tp, token: sha256.Sum256([]byte(cfg.Token)), off: cfg.Token == ""}
	h.rate.perSecond = cfg.Rate
	tp.srv.http.mux.HandleFunc("POST /topics/{name}", h.publish)
	tp.srv.http.mux.HandleFunc("GET /topics", h.list)
}

// relayWait is how long a request waits for the number of a message that other
// servers get too.
const relayWait = 5 * time.Second

// publishing is the HTTP side of the topics.
type publishing struct {
	topics *Topics
	token  [sha256.Size]byte
	off    bool
	rate   bucket
}

func (h *publishing) publish(w http.ResponseWriter, r *http.Request) {
	if !h.allowed(w, r) {
		return
	}
	if wait := h.rate.take(time.Now()); wait > 0 {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "more messages than --publish-rate allows; try again later", http.StatusTooManyRequests)
		return
	}
	body, release, ok := h.body(w, r)
	if !ok {
		return
	}
	defer release()
	op := ws.OpText
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/octet-stream" {
		op = ws.OpBinary
	}
	ctx, cancel := context.WithTimeout(r.Context(), relayWait)
	defer cancel()
	p, err := h.topics.PublishWait(ctx, r.PathValue("name"), op, body)
	if err != nil {
		h.refuse(w, err)
		return
	}
	status := http.StatusOK
	if p.Waiting {
		status = http.StatusAccepted
	}
	answer(w, status, p)
}

func (h *publishing) refuse(w http.ResponseWriter, err error) {
	status := http.StatusServiceUnavailable
	switch {
	case errors.Is(err, ErrTopicName):
		status = http.StatusBadRequest
	case errors.Is(err, ErrTooLarge): // for what the relay takes
		status = http.StatusRequestEntityTooLarge
	case errors.Is(err, ErrText):
		http.Error(w, "the body is not UTF-8; send it with Content-Type: application/octet-stream", http.StatusBadRequest)
		return
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	http.Error(w, err.Error(), status)
}

// body reads the body, which the memory budget must have room for.
func (h *publishing) body(w http.ResponseWriter, r *http.Request) (b []byte, release func(), ok bool) {
	budget, limit := h.topics.srv.group.Budget(), h.topics.limit
	tooLarge := func() {
		http.Error(w, ErrTooLarge.Error(), http.StatusRequestEntityTooLarge)
	}
	size := limit
	if r.ContentLength >= 0 {
		if r.ContentLength > int64(limit) {
			tooLarge()
			return nil, nil, false
		}
		size = int(r.ContentLength)
	}
	if !budget.Reserve(size) {
		w.Header().Set("Connection", "close") // or net/http waits for the body before it answers
		h.refuse(w, ErrMemory)
		return nil, nil, false
	}
	release = func() { budget.Release(size) }
	b = make([]byte, 0, min(size, 64<<10)+1) // more when it has come
	body := http.MaxBytesReader(w, r.Body, int64(limit))
	for {
		n, err := body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch _, over := errors.AsType[*http.MaxBytesError](err); {
		case err == io.EOF:
			return b, release, true
		case over:
			tooLarge()
		case err != nil:
			http.Error(w, "the body did not arrive whole", http.StatusBadRequest)
		}
		if err != nil {
			release()
			return nil, nil, false
		}
		if len(b) == cap(b) {
			b = append(make([]byte, 0, min(2*cap(b), size+1)), b...)
		}
	}
}

func (h *publishing) list(w http.ResponseWriter, r *http.Request) {
	if h.allowed(w, r) {
		answer(w, http.StatusOK, h.topics.List())
	}
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // whoever asked may have gone
}

// allowed checks the origin and the token, and answers if they will not do.
func (h *publishing) allowed(w http.ResponseWriter, r *http.Request) bool {
	if err := h.topics.srv.checkOrigin(r); err != nil {
		refuseHTTP(w, err)
		return false
	}
	if h.off {
		http.Error(w, "publishing over HTTP is off; the server needs --publish-token-file", http.StatusForbidden)
		return false
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	// Hashes have one length: comparing them tells nothing of the token's.
	sum := sha256.Sum256([]byte(token))
	if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(sum[:], h.token[:]) != 1 {
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "the token is missing or wrong (Authorization: Bearer TOKEN)", http.StatusUnauthorized)
		return false
	}
	return true
}

// checkOrigin asks the rule of the handshake whether a page that made the
// request could open a WebSocket here, by making that handshake.
func (s *Server) checkOrigin(r *http.Request) error {
	head := []byte("GET / HTTP/1.1\r\nHost: " + r.Host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n")
	for _, o := range r.Header["Origin"] {
		head = append(head, "Origin: "+o+"\r\n"...)
	}
	head = append(head, "\r\n"...)
	var req handshake.Request
	if _, err := handshake.ParseRequest(head, &handshake.Limits{Head: len(head)}, &req); err != nil {
		return err
	}
	var a handshake.Answer
	return handshake.Check(&req, &s.cfg.Handshake, &a)
}

// bucket is a token bucket that holds what one second brings.
type bucket struct {
	perSecond float64

	mu   sync.Mutex
	have float64
	at   time.Time
}

// take takes one and returns 0, or says how long it is until there is one. now
// must not go back.
func (b *bucket) take(now time.Time) (wait time.Duration) {
	if b.perSecond <= 0 {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	most := max(1, b.perSecond)
	if b.at.IsZero() {
		b.have = most
	} else {
		b.have = math.Min(most, b.have+b.perSecond*now.Sub(b.at).Seconds())
	}
	b.at = now
	if b.have < 1 {
		return time.Duration(math.Ceil((1 - b.have) / b.perSecond * float64(time.Second)))
	}
	b.have--
	return 0
}
