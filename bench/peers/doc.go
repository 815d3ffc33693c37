// Package peers holds other people's WebSocket libraries against wspoll: their
// clients talk to the real binary, started as a process of its own. It is a
// module of its own so that none of them becomes a dependency of wspoll.
//
// The Go clients come with go test. Those from npm (ws, and headless Chromium
// driven by playwright-core) need node, chromium and
//
//	npm ci --prefix npm
//
// in this directory; without them their tests say what is missing and skip.
// With WSPOLL_REQUIRE=1 in the environment what is missing fails the test; with
// WSPOLL_RACE=1 the server is built with the race detector.
//
// go test -artifacts -run Chromium . keeps the screenshots of the page.
package peers
