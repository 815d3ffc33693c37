package proxy

import (
	"bytes"
	"io"
	"testing"
	"time"
)

func TestTunnelPassesBytesAsTheyAre(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{Mode: ModeTunnel}, b)
	client, backend := px.open(t, b)
	for _, dir := range [][2]*end{{client, backend}, {backend, client}} {
		garbage := []byte("\xff\xff no frame at all \x00")
		dir[0].write(garbage)
		if got := dir[1].raw(len(garbage)); !bytes.Equal(got, garbage) {
			t.Errorf("%q came", got)
		}
	}
}

func TestLargeTransfersOfATunnelDoNotComeIntoMemory(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{Mode: ModeTunnel}, b)
	check := px.calm(t)
	client, backend := px.open(t, b)
	want := []byte(text(20 << 20))
	for _, dir := range [][2]*end{{client, backend}, {backend, client}} {
		go dir[0].conn.Write(want)
		got := make([]byte, len(want))
		for n := 0; n < len(got); {
			k, err := dir[1].conn.Read(got[n:min(len(got), n+3<<20)])
			if n += k; err != nil {
				t.Fatal(err)
			}
			if n%(1<<20) < 1000 {
				time.Sleep(time.Millisecond) // the pace of a reader so slow that bytes pile up at the proxy
			}
		}
		if !bytes.Equal(got, want) {
			t.Error("what came is not what was sent")
		}
	}
	st := px.Stats()
	t.Logf("%d of %d bytes were spliced", st.Spliced, st.Bytes[Up]+st.Bytes[Down])
	if st.Spliced == 0 {
		t.Error("nothing was spliced")
	}
	if st.Bytes[Up] != 20<<20 || st.Bytes[Down] != 20<<20 {
		t.Errorf("%d bytes up and %d down were counted", st.Bytes[Up], st.Bytes[Down])
	}
	client.reset()
	backend.reset()
	check()
}

// A FIN of one side is a FIN for the other, and the other direction goes on.
func TestTunnelHalfClosesEitherWay(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{Mode: ModeTunnel}, b)
	for _, large := range []bool{false, true} {
		tail := []byte("the tail")
		if large {
			tail = []byte(text(8 << 20))
		}
		for _, first := range []string{"client", "backend"} {
			check := px.calm(t)
			client, backend := px.open(t, b)
			from, to := client, backend
			if first == "backend" {
				from, to = backend, client
			}
			from.write([]byte("question"))
			from.conn.CloseWrite()
			if got := to.rest(); string(got) != "question" {
				t.Errorf("%q came", got)
			}
			done := make(chan error, 1)
			go func() {
				_, err := to.conn.Write(tail)
				to.conn.CloseWrite()
				done <- err
			}()
			time.Sleep(50 * time.Millisecond) // so that the end comes before the reading
			if got := from.rest(); !bytes.Equal(got, tail) {
				t.Errorf("%s first: %d bytes of the tail came, want %d", first, len(got), len(tail))
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			client.conn.Close()
			backend.conn.Close()
			check()
		}
	}
}

func TestTunnelEndsWhenOneSideDies(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{Mode: ModeTunnel}, b)
	check := px.calm(t)
	client, backend := px.open(t, b)
	backend.write([]byte("half of some"))
	client.raw(12)
	backend.reset()
	if got := client.rest(); len(got) > 0 {
		t.Errorf("%q came", got)
	}
	client.conn.Close()
	px.waitClosed(t, ReasonBackendGone, 1)

	client, backend = px.open(t, b)
	client.reset()
	if got := backend.rest(); len(got) > 0 {
		t.Errorf("%q came", got)
	}
	backend.conn.Close()
	px.waitClosed(t, ReasonClientGone, 1)
	check()
}

func TestTunnelHoldsAFastSideBack(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{Mode: ModeTunnel}, b)
	check := px.calm(t)
	client, backend := px.open(t, b)
	sent := client.flood(t)
	if held := px.Stats().Buffered; held == 0 || held > 1<<20 {
		t.Errorf("%d bytes are held", held)
	}
	if n, err := io.CopyN(io.Discard, backend.conn, int64(sent)); err != nil {
		t.Errorf("%d of %d bytes came: %v", n, sent, err)
	}
	client.reset()
	backend.reset()
	check()
}

func TestTunnelEndsWhenBothSidesAreSilent(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{Mode: ModeTunnel, IdleTimeout: 300 * time.Millisecond}, b)
	check := px.calm(t)
	client, backend := px.open(t, b)
	for range 6 { // one that speaks is enough
		time.Sleep(100 * time.Millisecond) // time is the subject: the timeout twice, but never in silence
		backend.write([]byte("x"))
		client.raw(1)
	}
	begin := time.Now()
	client.wantEnd()
	backend.wantEnd()
	if d := time.Since(begin); d < 200*time.Millisecond {
		t.Errorf("the end came after %v", d)
	}
	client.conn.Close()
	backend.conn.Close()
	px.waitClosed(t, ReasonIdle, 1)
	check()
}
