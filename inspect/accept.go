package inspect

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"strings"

	"wspoll/handshake"
)

// GUID is the constant that a server puts behind the key (§1.3).
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// Accept is where a Sec-WebSocket-Accept comes from, step by step (§4.2.2 item 5.4).
type Accept struct {
	Key    string `json:"key"`    // the Sec-WebSocket-Key, as it stands in the request
	Nonce  Hex    `json:"nonce"`  // the 16 bytes that it is the base64 of; they are not used
	Joined string `json:"joined"` // the key and the GUID
	SHA1   Hex    `json:"sha1"`   // of that
	Accept string `json:"accept"` // the base64 of that
}

// Derive derives the accept value of a key. The error says what is wrong with the key; the steps are there all the same,
// for a server that does not look would take them.
func Derive(key string) (Accept, error) {
	sum := sha1.Sum([]byte(key + GUID))
	a := Accept{Key: key, Joined: key + GUID, SHA1: sum[:], Accept: string(handshake.AppendAccept(nil, []byte(key)))}
	err := keyFault(key)
	if err == nil {
		// The last character has four bits that mean nothing, and need not be 0.
		a.Nonce, _ = base64.StdEncoding.DecodeString(key)
	}
	return a, err
}

// keyFault says what is wrong with a key that package handshake refuses.
func keyFault(key string) error {
	var r handshake.Request
	var answer handshake.Answer
	head := "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + "\r\n\r\n"
	_, err := handshake.ParseRequest([]byte(head), &limits, &r)
	if err == nil {
		err = handshake.Check(&r, nil, &answer)
	}
	if err == nil && string(answer.Key) == key {
		return nil
	}
	const want = "a Sec-WebSocket-Key is 16 bytes in base64: 22 characters and two of padding"
	for i, c := range key {
		if !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=", c) {
			return fmt.Errorf("%s; character %d, %q, is none of base64", want, i+1, c)
		}
	}
	if b, err := base64.StdEncoding.DecodeString(key); err == nil {
		return fmt.Errorf("%s; this one decodes to %d bytes", want, len(b))
	}
	return fmt.Errorf("%s; this one has %d characters and is not whole base64", want, len(key))
}
