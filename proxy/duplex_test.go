package proxy

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A backend may answer when it has the last byte of the request, before
// net/http has noticed that it was the last: the body of the answer must not
// be lost for that.
func TestAnswersOfRequestsWithBodiesComeWhole(t *testing.T) {
	answer := bytes.Repeat([]byte("an answer "), 500)
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			t.Errorf("the backend got a body with %v", err)
		}
		w.WriteHeader(http.StatusOK)
		for i := 0; i < len(answer); i += 500 {
			w.Write(answer[i : i+500])
			w.(http.Flusher).Flush()
		}
	}))
	defer back.Close()
	px := serve(t, Config{Routes: []Route{{To: []string{"ws://" + back.Listener.Addr().String()}}}})
	for i := range 300 {
		resp, err := http.Post("http://"+px.addr+"/", "text/plain", strings.NewReader("a body"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(got, answer) {
			t.Fatalf("request %d: %d bytes of the answer, %v, want %d", i, len(got), err, len(answer))
		}
	}
}
