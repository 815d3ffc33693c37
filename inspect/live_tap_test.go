package inspect

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// collector keeps what a Live explains.
type collector struct {
	mu    sync.Mutex
	x     map[*LiveConn]*explained
	lost  map[*LiveConn]*[2]int64
	ended map[*LiveConn]bool
	ends  map[*LiveConn]chan struct{}
	gate  chan struct{} // every call waits here, if there is one
}

func newCollector() *collector {
	return &collector{x: map[*LiveConn]*explained{}, lost: map[*LiveConn]*[2]int64{}, ended: map[*LiveConn]bool{}, ends: map[*LiveConn]chan struct{}{}}
}

func (k *collector) options() LiveOptions {
	lock := func(c *LiveConn) *explained {
		if k.gate != nil {
			<-k.gate
		}
		k.mu.Lock()
		if k.x[c] == nil {
			k.x[c], k.lost[c] = &explained{}, &[2]int64{}
		}
		return k.x[c]
	}
	return LiveOptions{
		Records: func(c *LiveConn, r []Record) { lock(c).add(r); k.mu.Unlock() },
		Lost:    func(c *LiveConn, d Dir, n int64) { lock(c); k.lost[c][d] += n; k.mu.Unlock() },
		End: func(c *LiveConn) {
			lock(c)
			k.ended[c] = true
			close(k.end(c))
			k.mu.Unlock()
		},
	}
}

// end is closed when c has ended. k is locked.
func (k *collector) end(c *LiveConn) chan struct{} {
	if k.ends[c] == nil {
		k.ends[c] = make(chan struct{})
	}
	return k.ends[c]
}

func (k *collector) await(t *testing.T, c *LiveConn) {
	t.Helper()
	k.mu.Lock()
	end := k.end(c)
	k.mu.Unlock()
	select {
	case <-end:
	case <-time.After(20 * time.Second):
		t.Fatal("waited too long for the end")
	}
}

// conversation is what a pair of sides say, and what is to be found in it.
func conversation(r *rand.Rand) []sent {
	parts := []sent{{Client, []byte(exampleRequest)}, {Server, []byte(exampleAnswer)}}
	for range 60 {
		payload := make([]byte, r.IntN(1+r.IntN(3000)))
		for i := range payload {
			payload[i] = 'a' + byte(r.IntN(26))
		}
		first := []byte{0x81, 0x82}[r.IntN(2)]
		parts = append(parts, sent{Client, fromClient(first, string(payload))}, sent{Server, fromServer(first, string(payload))})
	}
	return append(parts, sent{Client, fromClient(0x88, "\x03\xe8")}, sent{Server, fromServer(0x88, "\x03\xe8")})
}

// TestLiveExplainsAsIfItHadAllAtOnce: cut at random, scribbled over, and with several connections at a time.
func TestLiveExplainsAsIfItHadAllAtOnce(t *testing.T) {
	k := newCollector()
	l := NewLive(k.options())
	t.Cleanup(func() { // when the parallel ones have ended
		if !l.Close(10 * time.Second) {
			t.Error("it did not end")
		}
	})
	for seed := range uint64(6) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 3))
			parts := conversation(r)
			local := Dir(seed % 2)
			c := l.Watch(local, Options{}, nil)
			cut := atRandom(seed)
			size := [2]int{}
			for _, p := range parts {
				size[p.dir] += len(p.bytes)
				for b := p.bytes; len(b) > 0; {
					n := cut(len(b))
					chunk := slices.Clone(b[:n])
					c.Bytes(p.dir == local, chunk)
					for i := range chunk {
						chunk[i] = 0xa5
					}
					b = b[n:]
				}
			}
			c.End()
			c.End()
			c.Bytes(true, []byte("behind the end"))
			k.await(t, c)
			k.mu.Lock()
			defer k.mu.Unlock()
			got, want := k.x[c], explain(Options{}, parts, whole)
			for _, x := range [...]*explained{got, want} {
				for d := range 2 {
					for _, lane := range [][]Record{x.wire[d], x.message[d]} {
						for i := range lane {
							lane[i].When = time.Time{}
						}
					}
				}
			}
			sameExplanation(t, "live", want, got)
			accounted(t, got, size)
			if *k.lost[c] != [2]int64{} {
				t.Errorf("%v bytes were lost", *k.lost[c])
			}
		})
	}
}

// TestLiveNeverWaitsForAStuckReader: a writer that is stuck costs bytes on the screen, each of which is counted, and time of nobody.
func TestLiveNeverWaitsForAStuckReader(t *testing.T) {
	k := newCollector()
	k.gate = make(chan struct{})
	o := k.options()
	o.Room, o.PerConn, o.Conns = 64<<10, 32<<10, 8
	l := NewLive(o)
	var conns []*LiveConn
	var total [8][2]int64
	for range 8 {
		conns = append(conns, l.Watch(Server, Options{}, nil))
	}
	if l.Watch(Server, Options{}, nil) != nil {
		t.Error("one too many is watched")
	}
	r := rand.New(rand.NewPCG(5, 6))
	most := time.Duration(0)
	for range 3000 {
		i, d := r.IntN(8), Dir(r.IntN(2))
		b := fromServer(0x82, string(make([]byte, r.IntN(4000))))
		if d == Client {
			b = fromClient(0x82, string(make([]byte, r.IntN(4000))))
		}
		total[i][d] += int64(len(b))
		began := time.Now()
		conns[i].Bytes(d == Server, b)
		most = max(most, time.Since(began))
	}
	if most > 5*time.Second {
		t.Errorf("a call took %v with a reader that takes nothing", most)
	}
	l.mu.Lock()
	if cap(l.data) > 2*o.Room || len(l.data) > o.Room {
		t.Errorf("%d bytes wait in %d, there is room for %d", len(l.data), cap(l.data), o.Room)
	}
	l.mu.Unlock()
	for _, c := range conns {
		c.End()
	}
	if l.Close(10 * time.Millisecond) {
		t.Error("it says that all was explained")
	}
	close(k.gate) // the reader reads again
	if !l.Close(20 * time.Second) {
		t.Fatal("it did not end")
	}
	var shown, lost int64
	for i, c := range conns {
		for d := range 2 {
			seen := int64(0)
			for _, read := range k.x[c].read[d] {
				if read.Start != seen {
					t.Fatalf("connection %d: a read begins at %d, want %d", i, read.Start, seen)
				}
				seen = read.End
				if read.Read.Gap {
					lost += read.End - read.Start
				} else {
					shown += read.End - read.Start
				}
			}
			if seen != total[i][d] {
				t.Errorf("connection %d, %v: %d bytes are shown or counted as lost, %d were sent", i, Dir(d), seen, total[i][d])
			}
			if !k.ended[c] {
				t.Errorf("connection %d has no end", i)
			}
			lost -= k.lost[c][d]
		}
	}
	if lost != 0 {
		t.Errorf("gaps and counts differ by %d bytes", lost)
	}
	if shown == 0 || shown > 3*int64(o.Room) {
		t.Errorf("%d bytes are shown", shown)
	}
}

// TestLiveTellsWhatWasLostThoughNothingFollows: a connection may be silent for hours behind a burst.
func TestLiveTellsWhatWasLostThoughNothingFollows(t *testing.T) {
	type loss struct {
		d Dir
		n int64
	}
	gate, lost := make(chan struct{}), make(chan loss, 10)
	began := make(chan struct{}, 1)
	l := NewLive(LiveOptions{
		Room: 1000,
		Records: func(*LiveConn, []Record) {
			select {
			case began <- struct{}{}:
			default:
			}
			<-gate
		},
		Lost: func(_ *LiveConn, d Dir, n int64) { lost <- loss{d, n} },
		End:  func(*LiveConn) {},
	})
	defer l.Close(time.Second)
	c := l.Watch(Server, Options{}, nil)
	c.Bytes(true, make([]byte, 10))
	<-began // it is stuck, and what follows waits
	c.Bytes(true, make([]byte, 1000))
	c.Bytes(true, make([]byte, 7))
	c.Bytes(false, make([]byte, 5))
	close(gate)
	var sum [2]int64
	for range 2 {
		select {
		case x := <-lost:
			sum[x.d] += x.n
		case <-time.After(20 * time.Second):
			t.Fatalf("nothing is said of what was lost; until now %v", sum)
		}
	}
	if sum != [2]int64{5, 7} {
		t.Errorf("%v bytes of client and server were lost, want 5 and 7", sum)
	}
}

// TestLiveTellsOfALossWhileItsReaderIsStuck: at once, and then once a second.
func TestLiveTellsOfALossWhileItsReaderIsStuck(t *testing.T) {
	stuck, behind := make(chan struct{}), make(chan int64, 1000)
	defer close(stuck)
	l := NewLive(LiveOptions{Room: 1000, Records: func(*LiveConn, []Record) { <-stuck }, Lost: func(*LiveConn, Dir, int64) {}, Behind: func(n int64) { behind <- n }})
	c := l.Watch(Server, Options{}, nil)
	next := func() int64 {
		select {
		case n := <-behind:
			return n
		case <-time.After(20 * time.Second):
			t.Fatal("nothing is said of what was lost")
			return 0
		}
	}
	total, told := int64(0), int64(0)
	lose := func() {
		for range 100 {
			c.Bytes(true, make([]byte, 1000))
			total += 1000
		}
	}
	lose()
	told += next()
	began := time.Now()
	for range 10 {
		lose()
	}
	told += next()
	if took := time.Since(began); took < 900*time.Millisecond || len(behind) > 0 {
		t.Errorf("told again after %v, and %d times more", took, len(behind))
	}
	if shown := total - told; shown < 0 || shown > 3*1000 {
		t.Errorf("%d bytes were sent, %d were told to be lost", total, told)
	}
}

func TestLiveTakesNewConnectionsWhenOthersHaveEnded(t *testing.T) {
	k := newCollector()
	o := k.options()
	o.Conns = 2
	l := NewLive(o)
	defer l.Close(time.Second)
	for range 50 {
		c := l.Watch(Server, Options{}, nil)
		for deadline := time.Now().Add(20 * time.Second); c == nil && time.Now().Before(deadline); runtime.Gosched() {
			c = l.Watch(Server, Options{}, nil)
		}
		if c == nil {
			t.Fatal("there is no room any more")
		}
		c.End()
	}
}

func TestLiveAllocatesNothingPerRead(t *testing.T) {
	o := newCollector().options()
	stuck := make(chan struct{})
	defer close(stuck)
	o.Records = func(*LiveConn, []Record) { <-stuck }
	l := NewLive(o)
	c := l.Watch(Server, Options{}, nil)
	b := make([]byte, 1000)
	for range 2000 { // the buffers get their size
		c.Bytes(true, b)
	}
	if n := testing.AllocsPerRun(1000, func() { c.Bytes(true, b) }); n != 0 {
		t.Errorf("%v allocations for a read", n)
	}
}

func TestSecretsStayOutOfRecords(t *testing.T) {
	const secret = "s3cr3t"
	head := changed(exampleRequest, "Cookie: id="+secret, "authorization:Bearer "+secret, "Proxy-Authorization : Basic "+secret, "X: fine")
	answer := changed(exampleAnswer, "Set-Cookie: id="+secret)
	folded := changed(exampleRequest, "Cookie: a=1;\r\n\tid="+secret+"\r\n id="+secret, "X: fine")
	post := "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\n" + secret
	for name, parts := range map[string][]sent{
		"headers":      {{Client, []byte(head)}, {Server, []byte(answer)}},
		"folded":       {{Client, []byte(folded)}},
		"no end":       {{Client, []byte(head[:len(head)-2])}},
		"cut short":    {{Client, []byte(head[:len(head)-60])}},
		"a body":       {{Client, []byte(post)}},
		"no head":      {{Client, []byte("\r\n" + head)}},
		"behind a gap": {{Client, []byte(head)}},
	} {
		for cutName, cut := range map[string]func(int) int{"whole": whole, "byte by byte": byteWise} {
			for _, redact := range []bool{true, false} {
				e, x := New(Options{Redact: redact}), &explained{}
				size := [2]int{}
				for _, p := range parts {
					b := p.bytes
					if name == "behind a gap" {
						x.add(e.Feed(p.dir, time.Time{}, b[:10]))
						x.add(e.Gap(p.dir, time.Time{}, 20))
						b = b[30:]
					}
					size[p.dir] += len(p.bytes)
					for len(b) > 0 {
						n := cut(len(b))
						x.add(e.Feed(p.dir, time.Time{}, b[:n]))
						b = b[n:]
					}
				}
				x.add(e.Finish())
				accounted(t, x, size)
				shown := 0
				for _, r := range x.all {
					line := text(r) + r.String()
					if strings.Contains(line, secret) || strings.Contains(line, hexDigits([]byte(secret))) {
						shown++
					}
				}
				if redact && shown > 0 {
					t.Errorf("%s, %s: the secret is in %d records", name, cutName, shown)
				}
				if !redact && shown == 0 && name != "cut short" && name != "no head" {
					t.Errorf("%s, %s: there is no secret to hide: the test tests nothing", name, cutName)
				}
			}
		}
	}
}
