package main

import (
	"io"
	"slices"

	"wspoll/bench"
)

// The proxies that are this program itself.
const (
	compareTunnel = "tunnel"
	compareBare   = "bare"
)

// quickProxies are those of --quick --proxy, without --only.
var quickProxies = []string{compareOurs, compareTunnel, compareBare, "nginx", "haproxy", "go"}

// backend is what all proxies stand in front of.
func (o *compareOptions) backend() *bench.Contestant {
	return &bench.Contestant{
		Name: "backend", About: "wspoll serve",
		Args: append(slices.Clone(o.self), "serve", "--listen", "127.0.0.1:0", "--log-level", "warn", "--idle-timeout", "0"),
	}
}

// proxies are all that there are here.
func (o *compareOptions) proxies(stderr io.Writer) []bench.Contestant {
	proxy := func(flags ...string) []string {
		return append(append(slices.Clone(o.self), "proxy", "--listen", "127.0.0.1:0", "--to", "ws://{backend}", "--log-level", "warn"), flags...)
	}
	return append([]bench.Contestant{
		{Name: compareOurs, About: "this program, --mode frames", Args: proxy()},
		{Name: compareTunnel, About: "this program, --mode tunnel", Args: proxy("--mode", "tunnel")},
		{Name: compareBare, About: "bare TCP relay on the same loops", Args: proxy("--bare-relay")},
	}, bench.Proxies(o.reverse, stderr)...)
}
