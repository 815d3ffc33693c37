package conform

import (
	"fmt"
	"slices"
)

// Cutting: a case is run again and again, and each time what it sends is cut in two at another place. What a peer makes of
// bytes may not depend on how they arrive.
//
// Between the two parts the peer is to read the first. Nobody can see from outside whether it has; so a ping goes out on a
// connection beside, and its pong is waited for. A peer with one loop has then read the first part. Others nearly always.

// What is counted and cut is all that a case sends but the head of a handshake that is only its beginning; those are cut
// by the cases of heads.
const (
	cutAll    = 320      // up to so many bytes, at every position
	cutBegin  = 128      // of more bytes, the positions at the beginning,
	cutBetOne = 64       // so many between,
	cutEnd    = 64       // and those at the end
	bytewise  = 8 << 10  // up to so many bytes, also all of it byte by byte
	cutHuge   = 64 << 10 // above, a few positions only
)

// cuts are the positions at which n bytes are cut.
func cuts(n int) []int {
	var at []int
	switch {
	case n > cutHuge:
		return []int{1, 2, 5, 9, 10, 13, 14, n / 2, n - 1}
	case n <= cutAll:
		for i := 1; i < n; i++ {
			at = append(at, i)
		}
		return at
	}
	for i := 1; i <= cutBegin; i++ {
		at = append(at, i)
	}
	between := n - cutBegin - cutEnd
	for i := range cutBetOne {
		at = append(at, cutBegin+1+between*i/cutBetOne)
	}
	for i := n - cutEnd; i < n; i++ {
		at = append(at, i)
	}
	return slices.Compact(at)
}

// cutEverywhere runs c at all its cuts; r is what it found in one piece, with n bytes sent. The first verdict that is
// worse replaces it. fresh makes a Session. Of the cuts every Options.Cut-th is made, from the one with the number from
// on: cases that are alike are cut at different positions. It returns nil if the run was cancelled.
func cutEverywhere(c *Case, r *Result, n, from int, fresh func() *Session) *Result {
	worst := r
	try := func(how string, s *Session) bool {
		again := runCase(c, s)
		if again == nil {
			return false
		}
		r.Took += again.Took
		if again.Verdict > worst.Verdict {
			again.Remarks = append([]Remark{{again.Verdict, how}}, again.Remarks...)
			worst = again
		}
		return true
	}
	runs := 1
	for i, at := range cuts(n) {
		s := fresh()
		if i%s.opts.Cut != from {
			continue
		}
		s.cutAt = at
		if !try(fmt.Sprintf("when what was sent was cut behind byte %d of %d", at, n), s) {
			return nil
		}
		runs++
	}
	if n > 1 && n <= bytewise {
		s := fresh()
		one := *s.opts
		one.Chop = 1
		s.opts = &one
		if !try("when what was sent came byte by byte", s) {
			return nil
		}
		runs++
	}
	worst.Took, worst.Runs = r.Took, runs
	return worst
}

// beacon is a connection beside, to see that the peer has gone on.
type beacon struct{ s *Session }

// wait waits until the peer has answered a ping that is sent now. A peer that does not is not asked again.
func (b *beacon) wait(like *Session) {
	defer func() {
		if v := recover(); v != nil {
			if _, ok := v.(stop); !ok {
				panic(v)
			}
			b.s.release()
			if like.ctx.Err() != nil {
				panic(v)
			}
		}
	}()
	if b.s == nil {
		b.s = &Session{ctx: like.ctx, opts: like.opts, client: true, target: like.target}
		b.s.Open()
	}
	if b.s.conn != nil {
		b.s.record = transcript{}
		b.s.Alive()
	}
}

func (b *beacon) end() {
	if b.s != nil {
		b.s.release()
	}
}
