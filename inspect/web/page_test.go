package web

import (
	"io"
	"io/fs"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"wspoll/handshake"
)

var anyOrigin = handshake.Options{Origins: []string{"*"}}

func TestThePageIsSmall(t *testing.T) {
	size := int64(0)
	err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		size += info.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if t.Logf("%d bytes", size); size > 200<<10 {
		t.Errorf("%d bytes are more than 200 KiB", size)
	}
}

func TestThePageNamesTheEndpointsUnderAStrictPolicy(t *testing.T) {
	s := start(t)
	get := func(path string) (*http.Response, string) {
		t.Helper()
		r, err := http.Get("http://" + s.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != 200 {
			t.Fatalf("%s: %s %v", path, r.Status, err)
		}
		return r, string(b)
	}
	r, page := get("/")
	for _, want := range []string{"<code>/echo</code>", "echoes text and binary messages", "/healthz", "</html>"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not have %q", want)
		}
	}
	policy := r.Header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
		t.Errorf("policy %q", policy)
	}
	// Nothing inline, nothing from elsewhere.
	for _, no := range []string{"style=", "<style", "onclick", "javascript:", "//cdn", "@import", "<script>"} {
		if strings.Contains(page, no) {
			t.Errorf("the page has %q", no)
		}
	}
	loaded := regexp.MustCompile(`(?:src|<link[^>]* href)="([^"]+)"`).FindAllStringSubmatch(page, -1)
	if len(loaded) != 3 {
		t.Errorf("the page loads %v", loaded)
	}
	for _, l := range loaded {
		if strings.HasPrefix(l[1], "data:") {
			continue
		}
		r, text := get("/" + l[1])
		if kind := r.Header.Get("Content-Type"); kind != "text/css; charset=utf-8" && kind != "text/javascript; charset=utf-8" {
			t.Errorf("%s is %s", l[1], kind)
		}
		for _, no := range []string{"@import", "url(", "innerHTML", "eval(", "document.write", "setAttribute(\"style\""} {
			if strings.Contains(text, no) {
				t.Errorf("%s has %q", l[1], no)
			}
		}
	}
}
