package conform

import (
	"bytes"
	"fmt"
	"strings"

	"wspoll/frame"

	"github.com/gobwas/ws"
)

// before stands in front of the bytes that a UTF-8 case is about: text beyond ASCII, all of it right.
var before = []byte("κόσμε ")

// textCases are the cases of §8.1 for text messages: what is UTF-8 (RFC 3629) passes however it is cut, what is not
// fails the connection at its first wrong byte.
func textCases() []Case {
	cases := validTextCases()
	cases = append(cases, brokenTextCases()...)
	cases = append(cases, truncatedTextCases()...)
	return append(cases, placeCases()...)
}

// validTextCases: each boundary of the table in RFC 3629 §4, whole and cut at each of its bytes.
func validTextCases() []Case {
	var cases []Case
	for _, c := range []struct{ id, what, seq string }{
		{"u0000", "U+0000, the first character", "\x00"},
		{"u007f", "U+007F, the last of one byte", "\x7f"},
		{"u0080", "U+0080, the first of two bytes", "\u0080"},
		{"u07ff", "U+07FF, the last of two bytes", "\u07ff"},
		{"u0800", "U+0800, the first of three bytes", "\u0800"},
		{"ud7ff", "U+D7FF, the last before the surrogates", "\ud7ff"},
		{"ue000", "U+E000, the first after the surrogates", "\ue000"},
		{"ufeff", "U+FEFF, the byte order mark", "\ufeff"},
		{"ufffd", "U+FFFD, the replacement character", "\ufffd"},
		{"ufffe", "U+FFFE, no character but valid UTF-8", "\ufffe"},
		{"uffff", "U+FFFF, the last of three bytes", "\uffff"},
		{"u10000", "U+10000, the first of four bytes", "\U00010000"},
		{"u1ffff", "U+1FFFF, no character but valid UTF-8", "\U0001ffff"},
		{"u3ffff", "U+3FFFF, the last that begins with f0", "\U0003ffff"},
		{"u40000", "U+40000, the first that begins with f1", "\U00040000"},
		{"ufffff", "U+FFFFF, the last that begins with f3", "\U000fffff"},
		{"u100000", "U+100000, the first that begins with f4", "\U00100000"},
		{"u10ffff", "U+10FFFF, the last of all", "\U0010ffff"},
		{"mixed", "characters of one to four bytes", "a\u00e9\u20ac\U0001f600z"},
	} {
		id := "rfc6455-8.1-valid-" + c.id
		whole := append(bytes.Clone(before), c.seq...)
		cases = append(
			cases,
			orderly(id, "A text with "+c.what+", alone and with others before and behind. It must come back.", func(s *Session) {
				s.echo(text, []byte(c.seq))
				s.echo(text, whole)
				s.echo(text, append(bytes.Clone(whole), "end"...))
			}),
			orderly(id+"-fragments", "A text with "+c.what+", cut between two fragments at each byte, and into fragments of one byte. It must come back.", func(s *Session) {
				for i := range len(whole) + 1 {
					for _, f := range s.fragments(text, whole[:i], whole[i:]) {
						s.Send(f)
					}
					s.ExpectMessage(ws.OpText, whole)
				}
				for _, f := range s.fragments(text, cut(whole, 1)...) {
					s.Send(f)
				}
				s.ExpectMessage(ws.OpText, whole)
			}),
			orderly(id+"-segments", "A text with "+c.what+", in segments of one byte. It must come back.", func(s *Session) {
				s.SendChopped(s.Frame(fin|text, whole), 1)
				s.ExpectMessage(ws.OpText, whole)
			}),
		)
	}
	return cases
}

// broken are sequences that no UTF-8 text can have, with whatever may follow.
var broken = []struct{ id, what, seq string }{
	{"80", "a continuation byte that continues nothing", "\x80"},
	{"bf", "the last continuation byte, continuing nothing", "\xbf"},
	{"80-bf-80", "three continuation bytes that continue nothing", "\x80\xbf\x80"},
	{"c0-80", "an overlong NUL", "\xc0\x80"},
	{"c0-af", "an overlong / of two bytes", "\xc0\xaf"},
	{"c1-bf", "an overlong U+007F of two bytes", "\xc1\xbf"},
	{"e0-80-80", "an overlong NUL of three bytes", "\xe0\x80\x80"},
	{"e0-80-af", "an overlong / of three bytes", "\xe0\x80\xaf"},
	{"e0-9f-bf", "an overlong U+07FF of three bytes", "\xe0\x9f\xbf"},
	{"f0-80-80-80", "an overlong NUL of four bytes", "\xf0\x80\x80\x80"},
	{"f0-80-80-af", "an overlong / of four bytes", "\xf0\x80\x80\xaf"},
	{"f0-8f-bf-bf", "an overlong U+FFFF of four bytes", "\xf0\x8f\xbf\xbf"},
	{"f8-88-80-80-80", "a form of five bytes", "\xf8\x88\x80\x80\x80"},
	{"fb-bf-bf-bf-bf", "the last form of five bytes", "\xfb\xbf\xbf\xbf\xbf"},
	{"fc-84-80-80-80-80", "a form of six bytes", "\xfc\x84\x80\x80\x80\x80"},
	{"fd-bf-bf-bf-bf-bf", "the last form of six bytes", "\xfd\xbf\xbf\xbf\xbf\xbf"},
	{"fe", "a byte fe", "\xfe"},
	{"ff", "a byte ff", "\xff"},
	{"fe-fe-ff-ff", "bytes fe and ff", "\xfe\xfe\xff\xff"},
	{"ed-a0-80", "the surrogate U+D800, the first", "\xed\xa0\x80"},
	{"ed-ad-bf", "the surrogate U+DB7F", "\xed\xad\xbf"},
	{"ed-ae-80", "the surrogate U+DB80", "\xed\xae\x80"},
	{"ed-af-bf", "the surrogate U+DBFF, the last high one", "\xed\xaf\xbf"},
	{"ed-b0-80", "the surrogate U+DC00, the first low one", "\xed\xb0\x80"},
	{"ed-be-80", "the surrogate U+DF80", "\xed\xbe\x80"},
	{"ed-bf-bf", "the surrogate U+DFFF, the last", "\xed\xbf\xbf"},
	{"ed-a0-80-ed-b0-80", "a pair of surrogates (CESU-8)", "\xed\xa0\x80\xed\xb0\x80"},
	{"f4-90-80-80", "U+110000, the first above the last", "\xf4\x90\x80\x80"},
	{"f5-80-80-80", "a byte f5", "\xf5\x80\x80\x80"},
	{"f7-bf-bf-bf", "U+1FFFFF, the last of four bytes", "\xf7\xbf\xbf\xbf"},
	{"c2-41", "two bytes broken off by an ASCII character", "\xc2A"},
	{"e1-41", "three bytes broken off after one", "\xe1A"},
	{"e1-80-41", "three bytes broken off after two", "\xe1\x80A"},
	{"f1-41", "four bytes broken off after one", "\xf1A"},
	{"f1-80-41", "four bytes broken off after two", "\xf1\x80A"},
	{"f1-80-80-41", "four bytes broken off after three", "\xf1\x80\x80A"},
	{"c2-c2-80", "a first byte where the second should be", "\xc2\xc2\x80"},
	{"f1-80-f1-80-80-80", "four bytes that begin again after two", "\xf1\x80\xf1\x80\x80\x80"},
	{"c2-80-80", "one continuation byte too many", "\xc2\x80\x80"},
	{"fc", "a letter of Latin-1", "\xfc"},
}

// firstWrong is the index of the first byte of b that cannot be part of a UTF-8 text.
func firstWrong(b []byte) int {
	var u frame.UTF8
	n, _ := u.Write(b)
	return n
}

// brokenTextCases: each in one frame, and twice so that the peer has to fail before the message is complete.
func brokenTextCases() []Case {
	var cases []Case
	for _, c := range broken {
		id := "rfc6455-8.1-broken-" + c.id
		whole := []byte(string(before) + c.seq + "and more")
		wrong := firstWrong(whole)
		cases = append(
			cases,
			violation(id, "A text with "+c.what+" ("+spaced([]byte(c.seq))+").",
				func(s *Session) []byte { return s.Frame(fin|text, whole) }, 1007),
			Case{
				ID: id + "-fragments",
				Sentence: "A text with " + c.what + " (" + spaced([]byte(c.seq)) + "), in fragments of one byte, up to the first wrong byte. The peer must fail the connection, " +
					"with a Close 1007; it should do so before the rest comes.",
				Run: func(s *Session) {
					s.Open()
					f := s.fragments(text, cut(whole, 1)...)
					s.Send(bytes.Join(f[:wrong], nil))
					s.Send(f[wrong])
					s.ExpectFailBefore(bytes.Join(f[wrong+1:], nil), true, 1007)
				},
			},
			Case{
				ID: id + "-segments",
				Sentence: "A text with " + c.what + " (" + spaced([]byte(c.seq)) + "), in one frame, of which the bytes come one by one up to the first wrong one. " +
					"The peer must fail the connection, with a Close 1007; it should do so before the rest comes.",
				Run: func(s *Session) {
					s.Open()
					f := s.Frame(fin|text, whole)
					rest := len(f) - len(whole) + wrong + 1
					s.SendChopped(f[:rest], 1)
					s.ExpectFailBefore(f[rest:], false, 1007)
				},
			},
		)
	}
	return cases
}

// truncatedTextCases: texts that end inside a character. The fault shows with the end of the message.
func truncatedTextCases() []Case {
	var cases []Case
	for _, seq := range []string{
		"\xc2", "\xdf", "\xe0", "\xe0\xa0", "\xe1", "\xe1\x80", "\xed", "\xed\x9f", "\xef", "\xef\xbf",
		"\xf0", "\xf0\x90", "\xf0\x90\x80", "\xf3", "\xf3\xbf", "\xf3\xbf\xbf", "\xf4", "\xf4\x8f", "\xf4\x8f\xbf",
	} {
		id := "rfc6455-8.1-truncated-" + strings.ReplaceAll(spaced([]byte(seq)), " ", "-")
		whole := append(bytes.Clone(before), seq...)
		cases = append(
			cases,
			violation(id, "A text that ends inside a character ("+spaced([]byte(seq))+").",
				func(s *Session) []byte { return s.Frame(fin|text, whole) }, 1007),
			violation(id+"-fragments", "A text in fragments that ends inside a character ("+spaced([]byte(seq))+"); the last fragment is empty.",
				func(s *Session) []byte { return bytes.Join(s.fragments(text, append(cut(whole, 1), nil)...), nil) }, 1007),
		)
	}
	return cases
}

// placeCases: the wrong byte at places where a fast checker may look away.
func placeCases() []Case {
	var cases []Case
	for _, n := range []int{1, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 1000, 65535, 100000} {
		cases = append(
			cases,
			violation(fmt.Sprintf("rfc6455-8.1-place-ascii-%d", n), fmt.Sprintf("A text of %d ASCII characters, then a byte ff, then more ASCII.", n),
				func(s *Session) []byte {
					return s.Frame(fin|text, append(append(letters(n), 0xff), letters(70)...))
				}, 1007),
			violation(fmt.Sprintf("rfc6455-8.1-place-last-%d", n), fmt.Sprintf("A text of %d bytes of two-byte characters, then the first byte of one more.", 2*n),
				func(s *Session) []byte {
					return s.Frame(fin|text, append(bytes.Repeat([]byte("é"), n), 0xc3))
				}, 1007),
		)
	}
	return append(
		cases,
		orderly("rfc6455-8.1-ping-inside-character", "A character cut between two fragments with a ping between them, whose payload is not UTF-8. The pong and the message must come.", func(s *Session) {
			f := s.fragments(text, []byte("gr\xc3"), []byte("\xbcn"))
			s.Send(f[0])
			s.Send(s.Frame(fin|ping, []byte{0xff}))
			s.ExpectPong([]byte{0xff})
			s.Send(f[1])
			s.ExpectMessage(ws.OpText, []byte("grün"))
		}),
		Case{
			ID:       "rfc6455-8.1-character-over-two-messages",
			Sentence: "A text that ends inside a character, and a second one that begins with the rest of it. The peer must fail the connection for the first, with a Close 1007.",
			Run: func(s *Session) {
				s.Open()
				s.Send(append(s.Frame(fin|text, []byte("gr\xc3")), s.Frame(fin|text, []byte("\xbcn"))...))
				s.ExpectFail(1007)
			},
		},
		Case{
			ID:       "rfc6455-8.1-second-message",
			Sentence: "A text that is UTF-8, which must come back, and one that begins with a continuation byte. The peer must fail the connection, with a Close 1007.",
			Run: func(s *Session) {
				s.Open()
				s.echo(text, []byte("grün"))
				s.Send(s.Frame(fin|text, []byte("\xbcn")))
				s.ExpectFail(1007)
			},
		},
		Case{
			ID:       "rfc6455-8.1-second-fragment",
			Sentence: "A long first fragment that is UTF-8, and a second that is not. The peer must fail the connection, with a Close 1007; it should do so before the rest comes.",
			Run: func(s *Session) {
				s.Open()
				f := s.fragments(text, bytes.Repeat([]byte("grün "), 5000), []byte("gr\xfcn"), []byte("end"))
				s.Send(f[0])
				s.Send(f[1])
				s.ExpectFailBefore(f[2], true, 1007)
			},
		},
	)
}
