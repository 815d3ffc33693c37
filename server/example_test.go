package server_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"

	"wspoll/frame"
	"wspoll/handshake"
	"wspoll/server"

	"github.com/gobwas/ws"
)

// roundTrip is the smallest client: it opens a connection, sends one text
// message, unless that is empty, and returns the first that comes. Real
// programs use a client library.
func roundTrip(addr, path, message string) string {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	conn.Write(handshake.AppendRequest(nil, &handshake.Hello{Host: addr, Target: path, Key: []byte("dGhlIHNhbXBsZSBub25jZQ==")}))
	var (
		in    []byte
		resp  handshake.Response
		conns frame.Conn
		rules = frame.Rules{Client: true, Mask: func() [4]byte { return [4]byte{1, 2, 3, 4} }} // at random, in earnest
		piece frame.Piece
		b     = make([]byte, 4096)
	)
	for opened := false; ; {
		n, err := conn.Read(b)
		if err != nil {
			return err.Error()
		}
		in = append(in, b[:n]...)
		if !opened {
			n, err := handshake.ParseResponse(in, nil, &resp)
			if err != nil || n > 0 && resp.Status != 101 {
				return string(in)
			}
			if n == 0 {
				continue
			}
			in, opened = in[n:], true
			if message != "" {
				conn.Write(frame.AppendMasked(nil, true, ws.OpText, rules.Mask(), []byte(message)))
			}
		}
		if n, _, err := conns.Next(&rules, in, nil, &piece); err != nil {
			return err.Error()
		} else if n > 0 && piece.First && piece.Last {
			return string(piece.Data)
		}
	}
}

// A WebSocket server with one endpoint, and how it ends.
func ExampleServer() {
	srv, err := server.New(server.Config{Loops: 2})
	if err != nil {
		log.Fatal(err)
	}
	srv.Handle("/shout", &server.Endpoint{
		Message: func(c server.Conn, op ws.OpCode, payload []byte) {
			c.Send(op, bytes.ToUpper(payload))
		},
	})
	addr, err := srv.Listen("127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	srv.Start()

	fmt.Println(roundTrip(addr.String(), "/shout", "hello"))

	fmt.Println(srv.Shutdown(context.Background()))
	// Output:
	// HELLO
	// <nil>
}

// A function that waits, for a database or another service, runs on a goroutine
// of its own, one message of a connection after another.
func ExampleEndpoint_blocking() {
	srv, err := server.New(server.Config{})
	if err != nil {
		log.Fatal(err)
	}
	answers := make(chan string, 1) // something slow
	srv.Handle("/ask", &server.Endpoint{
		Blocking: func(r server.Ref, op ws.OpCode, payload []byte) {
			answers <- "the answer to " + string(payload)
			if err := r.Send(op, []byte(<-answers)); err != nil {
				log.Print(err)
			}
		},
	})
	addr, err := srv.Listen("127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	srv.Start()
	defer srv.Shutdown(context.Background())

	fmt.Println(roundTrip(addr.String(), "/ask", "everything"))
	// Output: the answer to everything
}

// A program that has a net/http server adds WebSocket endpoints to it: its
// handler takes the connection out and puts it on a loop.
func ExampleServer_Upgrade() {
	srv, err := server.New(server.Config{})
	if err != nil {
		log.Fatal(err)
	}
	srv.Handle("/ws", server.Echo())
	srv.Start() // without Listen: its connections come from net/http
	defer srv.Shutdown(context.Background())

	mux := http.NewServeMux()
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		if user, _, ok := r.BasicAuth(); ok { // what the program does before
			log.Print("hello ", user)
		}
		if err := srv.Upgrade(w, r); err != nil {
			log.Print(err) // the peer has been told
		}
	})
	existing := httptest.NewServer(mux)
	defer existing.Close()

	fmt.Println(roundTrip(existing.Listener.Addr().String(), "/ws", "hello"))
	// Output: hello
}

// What happens somewhere in a program is told to all who subscribed. The
// newest message waits for those who come later.
func ExampleTopics() {
	srv, err := server.New(server.Config{Topics: server.TopicConfig{Retain: []string{"weather.*"}}})
	if err != nil {
		log.Fatal(err)
	}
	srv.Handle("/topics/", srv.Topics().Endpoint())
	addr, err := srv.Listen("127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	srv.Start()
	defer srv.Shutdown(context.Background())

	if _, err := srv.Topics().Publish("weather.rome", ws.OpText, []byte("sunny")); err != nil {
		log.Fatal(err)
	}
	fmt.Println(roundTrip(addr.String(), "/topics/weather.rome", ""))
	// Output: sunny
}
