package inspect

import (
	"net/http"
	"strconv"
	"strings"
)

// requestHeader says what a header of a request is for, and where that is written.
func requestHeader(name string) (what, section string) {
	switch name {
	case "host":
		return "which host the client wants, for servers that serve several", "RFC 6455 §4.1 item 4"
	case "upgrade":
		return "the protocol that the client wants to change to", "RFC 6455 §4.1 item 5"
	case "connection":
		return "Upgrade concerns this hop: a proxy that does not know it drops both", "RFC 6455 §4.1 item 6"
	case "sec-websocket-key":
		return "16 random bytes in base64; the answer must be made of them, so it comes from a server that means it", "RFC 6455 §4.1 item 7"
	case "origin":
		return "the page whose script connects; browsers send it, and the server decides", "RFC 6455 §4.1 item 8"
	case "sec-websocket-version":
		return "the version of the protocol, 13 since the RFC", "RFC 6455 §4.1 item 9"
	case "sec-websocket-protocol":
		return "the subprotocols that the client speaks, the preferred one first", "RFC 6455 §4.1 item 10"
	case "sec-websocket-extensions":
		return "the extensions that the client offers, the preferred one first", "RFC 6455 §4.1 item 11"
	case "cookie":
		return "cookies of the host: how most servers know who it is", "RFC 6455 §4.1 item 12"
	case "authorization":
		return "credentials of the client", "RFC 6455 §10.5"
	case "user-agent":
		return "the program of the client", "RFC 9110 §10.1.5"
	case "sec-websocket-accept":
		return "belongs in the answer; in a request it means nothing", "RFC 6455 §11.3.3"
	case "content-length", "transfer-encoding":
		return "announces a body", "RFC 9112 §6.3"
	case "x-forwarded-for", "forwarded":
		return "a proxy says for whom it asks", "RFC 7239 §4"
	}
	if strings.HasPrefix(name, "sec-fetch-") {
		return "what the browser says of how the request came about", "W3C Fetch Metadata"
	}
	return "HTTP; WebSocket does not use it", "RFC 6455 §4.1 item 12"
}

// responseHeader is requestHeader for an answer.
func responseHeader(name string) (what, section string) {
	switch name {
	case "upgrade":
		return "the protocol that the connection changes to", "RFC 6455 §4.2.2 item 5.2"
	case "connection":
		return "Upgrade concerns this hop", "RFC 6455 §4.2.2 item 5.3"
	case "sec-websocket-accept":
		return "made of the key, which shows that the server knows WebSocket", "RFC 6455 §4.2.2 item 5.4"
	case "sec-websocket-protocol":
		return "the subprotocol that the server chose", "RFC 6455 §4.2.2 item 5.5"
	case "sec-websocket-extensions":
		return "the extensions in use from now on", "RFC 6455 §4.2.2 item 5.6"
	case "sec-websocket-version":
		return "the versions that the server speaks", "RFC 6455 §4.4"
	case "set-cookie":
		return "a cookie for the client", "RFC 6455 §4.1"
	case "content-length", "transfer-encoding":
		return "announces a body", "RFC 9112 §6.3"
	case "date":
		return "when the answer was made", "RFC 9110 §6.6.1"
	case "server":
		return "the program of the server", "RFC 9110 §10.2.4"
	}
	return "HTTP; WebSocket does not use it", "RFC 6455 §4.2.2"
}

// statusLine says what the status of an answer means.
func statusLine(lines []headLine) (what, section string) {
	const section101 = "RFC 6455 §4.2.2 item 5.1"
	_, rest, _ := strings.Cut(string(lines[0].content()), " ")
	status, _, _ := strings.Cut(rest, " ")
	switch code, _ := strconv.Atoi(status); {
	case code == 101:
		return "the server agrees: after the empty line both sides speak frames", section101
	case code == 426:
		return "426: the server wants a WebSocket handshake, or another version of it", "RFC 6455 §4.2.2"
	case code == 401 || code == 407:
		return status + ": the server wants credentials first", "RFC 6455 §4.1"
	case code >= 300 && code < 400:
		return status + ": somewhere else; a client may follow, browsers do not", "RFC 6455 §4.1"
	case http.StatusText(code) != "":
		return status + ": " + http.StatusText(code) + "; the connection goes on as HTTP", "RFC 6455 §4.1 response item 1"
	}
	return "the status line", section101
}
