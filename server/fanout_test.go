package server

import (
	"sync"
	"testing"

	"github.com/gobwas/ws"
)

// What one endpoint gets may go to all others through their Refs; bench push is
// tested against such a one.
func TestRefsCarryAMessageToEveryOtherConnection(t *testing.T) {
	var mu sync.Mutex
	var refs []Ref
	all := &Endpoint{
		Open: func(c Conn) { mu.Lock(); refs = append(refs, c.Ref()); mu.Unlock() },
		Message: func(_ Conn, op ws.OpCode, payload []byte) {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range refs {
				if err := r.Send(op, payload); err != nil {
					t.Error(err)
				}
			}
		},
	}
	s := serve(t, Config{Loops: 2}, map[string]*Endpoint{"/all": all})
	var clients []*client
	for range 20 {
		clients = append(clients, s.open(t, "/all"))
	}
	clients[0].send(ws.OpText, []byte("to all"))
	for _, c := range clients {
		if f, err := c.next(); err != nil || string(f.payload) != "to all" {
			t.Fatalf("got %q, %v", f.payload, err)
		}
	}
}
