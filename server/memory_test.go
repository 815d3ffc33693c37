package server

import (
	"io"
	"reflect"
	"runtime"
	"testing"

	"wspoll/epoll"
	"wspoll/frame"

	"github.com/gobwas/ws"
)

// mallocs is how many objects the process allocates in so many rounds, once it
// is warm.
func mallocs(rounds int, round func()) uint64 {
	for range 100 {
		round()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range rounds {
		round()
	}
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}

func TestEchoedMessageAllocatesNothing(t *testing.T) {
	const messages = 20_000
	whole := &Endpoint{Message: func(c Conn, op ws.OpCode, p []byte) { c.Send(op, p) }}
	for path, size := range map[string]int{"/echo": 32, "/message": 1000} {
		t.Run(path, func(t *testing.T) {
			s := serve(t, Config{}, map[string]*Endpoint{"/message": whole})
			c := s.open(t, path)
			request := masked(true, ws.OpText, make([]byte, size))
			answer := make([]byte, len(frame.AppendFrame(nil, true, ws.OpText, make([]byte, size))))
			round := func() {
				if _, err := c.conn.Write(request); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(c.conn, answer); err != nil {
					t.Fatal(err)
				}
			}
			if n := mallocs(messages, round); n > 100 {
				t.Errorf("%d allocations for %d messages", n, messages)
			}
		})
	}
}

func TestStateOfAConnectionIsSmallAndWithoutPointers(t *testing.T) {
	typ := reflect.TypeFor[state]()
	if typ.Size() != 24 {
		t.Errorf("%d bytes", typ.Size())
	}
	var look func(typ reflect.Type, name string)
	look = func(typ reflect.Type, name string) {
		switch typ.Kind() {
		case reflect.Struct:
			for field := range typ.Fields() {
				look(field.Type, name+"."+field.Name)
			}
		case reflect.Array:
			look(typ.Elem(), name+"[]")
		case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
			reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		default:
			t.Errorf("%s is a %v", name, typ)
		}
	}
	look(typ, "state")
}

// An idle connection has no goroutine and no buffer.
func TestIdleConnectionsCostNoGoroutineAndNoBuffer(t *testing.T) {
	s := serve(t, Config{Loops: 2}, nil)
	before := runtime.NumGoroutine()
	for range 300 {
		s.open(t, "/echo").echoes(ws.OpText, []byte("once"))
	}
	if n := runtime.NumGoroutine(); n > before+2 {
		t.Errorf("%d goroutines more for 300 connections", n-before)
	}
	if st := s.Stats(); st.Buffered != 0 || st.WebSockets != 300 {
		t.Errorf("%+v", st)
	}
	s.group.Do(func(l *epoll.Loop) {
		sh := s.shards[l.Index()]
		if n := len(sh.parsers) + len(sh.joins) + len(sh.queues) + len(sh.values) + len(sh.postponed) + len(sh.faults); n != 0 {
			t.Errorf("%d entries in maps", n)
		}
	})
}
