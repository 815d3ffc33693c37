package server

import (
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"wspoll/epoll"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// subscribe puts c on a topic, in mode md and with the compression that was
// agreed on. It gets the messages it begins with at once, as
// far as its socket takes them.
func (sh *shard) subscribe(c epoll.Slot, st *state, name string, md mode, begin beginning) error {
	if st.phase != phaseOpen || st.proto.CloseSent() || sh.srv.endpoints[st.endpoint].beat != nil {
		return ErrSubscribed
	}
	if _, on := sh.seatOn(c, st, name); on {
		return nil
	}
	md = md.under(st.proto.Deflate)
	lc, at, err := sh.srv.topics.enter(sh, name, md, begin)
	if err != nil {
		return err
	}
	g := sh.groupOf(lc, md)
	if g == nil {
		if lc.behind == 0 {
			lc.forgetOldest(len(lc.kept)) // that were for c
		}
		sh.srv.topics.left(lc, md)
		return ErrSubscribed
	}
	id := sh.loop.ID(c)
	began := at.num
	if first := lc.first(); at.seq+1 < first {
		// Not its fault, so no policy speaks.
		at = reached{seq: first - 1, num: lc.floor(), fresh: true}
	}
	sh.putApart(c, g, at)
	if n := begin.since; n > 0 && sh.srv.topics.foreign() {
		sh.tell(c, st, "gap", name, n+1, max(n+1, began))
	}
	if md.numbered() {
		sh.tell(c, st, "at", name, began)
		if began > 0 && began < at.num {
			sh.tell(c, st, "gap", name, began+1, at.num)
		}
	}
	if sh.loop.Flush(c); sh.loop.ID(c) == id {
		sh.catchUp(c, st, g)
	}
	return nil
}

// seatOn is the group of c on a topic.
func (sh *shard) seatOn(c epoll.Slot, st *state, name string) (g *group, on bool) {
	sh.seats(c, st, func(x *group, _ uint32) bool {
		if x.local.topic.name == name {
			g, on = x, true
		}
		return !on
	})
	return g, on
}

// Subscribe makes c, which may be of any endpoint, a subscriber of a topic: it
// gets the retained message, if there is one, and everything from then on. To
// be called on the connection's loop, that is, within a function of its
// endpoint. It ends with the connection, or with Unsubscribe.
func (tp *Topics) Subscribe(c Conn, name string) error {
	if !ValidTopicName(name) {
		return ErrTopicName
	}
	slot, st := c.find()
	if st == nil {
		return ErrSubscribed
	}
	return c.sh.subscribe(slot, st, name, modePlain, beginning{})
}

// Unsubscribe takes c off a topic. What was published before and has not been
// sent to it is not sent any more.
func (tp *Topics) Unsubscribe(c Conn, name string) {
	slot, st := c.find()
	if st == nil {
		return
	}
	if g, on := c.sh.seatOn(slot, st, name); on {
		place := placeApart
		if _, apart := g.behind[slot]; !apart {
			place = uint32(c.sh.placeIn(slot, st, g))
		}
		c.sh.leave(slot, st, g, place)
	}
}

// Endpoint is the one to give to Server.Handle for a path that ends in "/": a
// client that opens PATH/NAME subscribes to NAME, and what it sends goes to
// the other subscribers if the topic is open. The query may say:
//
//	also=A,B      these topics too; what the client sends goes to NAME alone
//	seq=1         with numbers, see below
//	since=N       with numbers, beginning behind number N of NAME
//	also=A:N      the same for A
//
// Messages come as they were published, unless numbers are asked for. Then
// each message begins with a line, which ends in a line feed, and the payload
// follows; the opcode is that of the payload:
//
//	seq N NAME    the message with number N of topic NAME
//
// and there are text messages of one line without an end:
//
//	at N NAME       first: what follows of NAME has numbers above N
//	gap N M NAME    those from N to M will not come
//	own N NAME      the message that you published has become number N
//
// A server that shares its topics with others (see Topics.Join) may, while it
// cannot reach them, send a message before it has its number. It begins with
// the line
//
//	local NAME
//
// and comes again, with its number, when they are reached again. There,
// numbers go up but not by one, and gap N M means that messages between may
// have been lost.
//
// Where compression was agreed on, messages of Config.CompressMin or more bytes,
// the line of a number with them, come compressed; the other lines come as they
// are. With context takeover they refer to others of their topic, if the client
// is on no other one, and what is sent to it alone is not compressed then.
//
// Numbers of a topic go up by one, and never come twice, not after a restart
// either: a new topic begins at the time, in microseconds. A client that comes
// back with the last number it was told, by any of these lines, gets all that
// is still kept (TopicConfig.Replay) and is told of the rest as a gap; with
// since=0 it gets what is kept and is told of no gap.
func (tp *Topics) Endpoint() *Endpoint {
	return &Endpoint{
		About:   "what is published to the topic NAME",
		tail:    "NAME",
		plain:   true,
		accept:  acceptWishes,
		Open:    tp.opened,
		Message: tp.message,
	}
}

// wish is a topic that a request asks for.
type wish struct {
	name  string
	begin beginning
}

// wishes are all that it asks for; the first is the one of its path.
type wishes struct {
	topics   []wish
	numbered bool
}

// nameIn is the last part of a request's path.
func nameIn(r *handshake.Request) []byte { return r.Path[bytes.LastIndexByte(r.Path, '/')+1:] }

func acceptWishes(r *handshake.Request) *handshake.Refusal {
	if len(r.Query) == 0 && ValidTopicName(string(nameIn(r))) {
		return nil // as most ask, and what they cost is seen when very many come
	}
	_, ref := parseWishes(r)
	return ref
}

func badWish(status int, msg string) *handshake.Refusal {
	return &handshake.Refusal{Status: status, Msg: msg}
}

// parseWishes reads a path and a query as Endpoint explains them.
func parseWishes(r *handshake.Request) (w wishes, ref *handshake.Refusal) {
	name := string(nameIn(r))
	if !ValidTopicName(name) {
		return w, badWish(http.StatusNotFound, ErrTopicName.Error())
	}
	q, err := url.ParseQuery(string(r.Query))
	if err != nil {
		return w, badWish(http.StatusBadRequest, "the query cannot be read: "+err.Error())
	}
	names := []string{name}
	if q.Has("since") {
		names[0] += ":" + q.Get("since")
	}
	for _, list := range q["also"] {
		names = append(names, strings.Split(list, ",")...)
	}
	if len(names) > maxSeveral {
		return w, badWish(http.StatusBadRequest, "more than "+strconv.Itoa(maxSeveral)+" topics in one request")
	}
	for _, s := range names {
		name, since, given := strings.Cut(s, ":")
		if !ValidTopicName(name) {
			return w, badWish(http.StatusBadRequest, "also="+strconv.QuoteToASCII(s)+": "+ErrTopicName.Error())
		}
		x := wish{name: name}
		if given {
			n, err := strconv.ParseUint(since, 10, 63)
			if err != nil {
				return w, badWish(http.StatusBadRequest, "since "+strconv.QuoteToASCII(since)+" is not the number of a message")
			}
			x.begin, w.numbered = beginning{true, n}, true
		}
		w.topics = append(w.topics, x)
	}
	w.numbered = w.numbered || q.Get("seq") == "1"
	return w, nil
}

// known is a topic's name; of one that there is, the same string each time.
func (tp *Topics) known(name []byte) string {
	tp.mu.RLock()
	defer tp.mu.RUnlock()
	if t := tp.byName[string(name)]; t != nil {
		return t.name
	}
	return string(name)
}

func (tp *Topics) opened(c Conn) {
	if r := c.Request(); len(r.Query) == 0 {
		tp.wanted(c, tp.known(nameIn(r)), modePlain, beginning{})
		return
	}
	w, ref := parseWishes(c.Request())
	if ref != nil {
		return // it would have been refused
	}
	md := modePlain
	if w.numbered {
		md = modeSeq
	}
	for _, x := range w.topics {
		if !tp.wanted(c, x.name, md, x.begin) {
			return
		}
	}
}

// wanted makes c a subscriber as it asked; false when c is being closed.
func (tp *Topics) wanted(c Conn, name string, md mode, begin beginning) bool {
	slot, st := c.find()
	if st == nil {
		return false
	}
	err := c.sh.subscribe(slot, st, name, md, begin)
	if errors.Is(err, ErrTopicMax) {
		c.sh.sendClose(slot, st, ReasonFull, statusTryAgainLater, err.Error())
	}
	return err == nil
}

// message is one that a subscriber sent.
func (tp *Topics) message(c Conn, op ws.OpCode, payload []byte) {
	slot, st := c.find()
	if st == nil || st.group == groupNone {
		return
	}
	first := st.group
	if first == groupMany {
		first = c.sh.several[slot][0].group
	}
	t := c.sh.groups[first].local.topic
	if !t.open {
		c.Close(ws.StatusPolicyViolation, "topic "+t.name+" takes no messages from clients")
		return
	}
	var err error
	if tp.relay != nil {
		err = tp.pass(t.name, op, payload, c.Ref(), nil)
	} else {
		_, err = tp.publish(&publication{name: t.name, op: op, payload: payload, from: c.Ref()})
	}
	switch {
	case errors.Is(err, ErrTooLarge):
		c.sh.sendClose(slot, st, ReasonTooLarge, ws.StatusMessageTooBig, "larger than a message of a topic may be, "+strconv.Itoa(tp.limit)+" bytes")
	case errors.Is(err, ErrMemory) || errors.Is(err, ErrBusy):
		c.sh.sendClose(slot, st, ReasonMemory, statusTryAgainLater, "out of memory for messages; try again later")
	case err == nil:
		tp.holdBack(c)
	}
}
