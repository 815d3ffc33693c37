package conform

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// Case is one conversation with the peer and what it has to show.
type Case struct {
	ID       string // "rfc6455-5.2-rsv2": the RFC, the section, what it is; unique and for ever
	Sentence string // what is sent, what must come back, what may
	Peer     Peer   // whom it is for; the zero value is for servers and clients
	Heavy    bool   // moves megabytes: only few of these run at the same time
	Run      func(*Session)
}

// Section is the clause that the case is about: "RFC 6455 §5.2".
func (c *Case) Section() string {
	parts := strings.SplitN(c.ID, "-", 3)
	return "RFC " + strings.TrimPrefix(parts[0], "rfc") + " §" + parts[1]
}

// Peer is who is tested.
type Peer uint8

// The kinds of Peer.
const (
	Both   Peer = iota
	Server      // only with us as the client
	Client      // only with us as the server
)

// Verdict is what a case found, the worst thing last.
type Verdict uint8

// The verdicts, see the package comment.
const (
	OK Verdict = iota
	Unimplemented
	NonStrict
	Failed
)

var verdictNames = [...]string{"ok", "unimplemented", "non-strict", "failed"}

func (v Verdict) String() string { return verdictNames[v] }

// MarshalText makes a Verdict a word in JSON.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (v *Verdict) UnmarshalText(b []byte) error {
	i := slices.Index(verdictNames[:], string(b))
	if i < 0 {
		return &verdictError{string(b)}
	}
	*v = Verdict(i)
	return nil
}

type verdictError struct{ word string }

func (e *verdictError) Error() string { return "no verdict is called " + e.word }

// groups are the cases by subject, each in a file of its own.
var groups = []func() []Case{
	requestCases,
	answerCases,
	frameCases,
	fragmentCases,
	controlCases,
	closeCases,
	textCases,
	limitCases,
	offerCases,
	deflateAnswerCases,
	deflateWindowCases,
	deflateStreamCases,
	corruptCases,
	deflateFrameCases,
}

// Cases are all cases for one kind of peer, in the order of their sections. peer is Server or Client.
func Cases(peer Peer) []Case {
	var all []Case
	for _, g := range groups {
		for _, c := range g() {
			if c.Peer == Both || c.Peer == peer {
				all = append(all, c)
			}
		}
	}
	slices.SortFunc(all, func(a, b Case) int { return compareIDs(a.ID, b.ID) })
	return all
}

// Select keeps the cases whose id matches one of the globs, where * also stands for hyphens and dots; all when there are
// none. A glob that is malformed or matches nothing is returned in bad.
func Select(cases []Case, globs []string) (some []Case, bad string) {
	if len(globs) == 0 {
		return cases, ""
	}
	for _, g := range globs {
		n := 0
		for _, c := range cases {
			if ok, err := path.Match(g, c.ID); err == nil && ok {
				n++
			}
		}
		if n == 0 {
			return nil, g
		}
	}
	for _, c := range cases {
		if slices.ContainsFunc(globs, func(g string) bool { ok, _ := path.Match(g, c.ID); return ok }) {
			some = append(some, c)
		}
	}
	return some, ""
}

// compareIDs orders ids with their numbers as numbers: §5.2 comes before §10.4.
func compareIDs(a, b string) int {
	for a != "" && b != "" {
		na, nb := leadingNumber(a), leadingNumber(b)
		if na > 0 && nb > 0 {
			x, y := strings.TrimLeft(a[:na], "0"), strings.TrimLeft(b[:nb], "0")
			if c := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)); c != 0 {
				return c
			}
			a, b = a[na:], b[nb:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func leadingNumber(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}
