package peers

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// node runs a script of the directory npm that needs the package.
func node(t *testing.T, pkg, script string, args ...string) {
	t.Helper()
	path, err := exec.LookPath("node")
	if err != nil {
		missing(t, "node is missing (version 20 or later; on Debian: apt-get install nodejs npm)")
	}
	if _, err := os.Stat(filepath.Join("npm", "node_modules", pkg)); err != nil {
		missing(t, "the npm package %s is missing; get it with: npm ci --prefix bench/peers/npm", pkg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append([]string{script}, args...)...)
	cmd.Dir = "npm"
	out, err := cmd.CombinedOutput()
	t.Logf("%s\n%s", script, out)
	if err != nil {
		t.Errorf("%s: %v", script, err)
	}
}

func TestNpmWsClient(t *testing.T) {
	for mode, agreed := range agreements {
		t.Run("compress "+mode, func(t *testing.T) {
			s := start(t, "--subprotocol", "chat", "--compress", mode)
			node(t, "ws", "echo.mjs", s.url, agreed)
		})
	}
}

// agreements are the answers to a client that offers permessage-deflate and lets
// the server choose its window, by --compress.
var agreements = map[string]string{
	"off":     "",
	"shared":  "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
	"context": "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
}

// chromiumUses opens the page of wspoll at a URL in Chromium and uses it as a
// person would.
func chromiumUses(t *testing.T, page string) {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		missing(t, "chromium is missing (on Debian: apt-get install chromium)")
	}
	shots, err := filepath.Abs(t.ArtifactDir())
	if err != nil {
		t.Fatal(err)
	}
	node(t, "axe-core", "page.mjs", page, chromium, shots)
}

func TestChromiumUsesThePage(t *testing.T) {
	s := start(t)
	chromiumUses(t, s.page())
	s.logged(`reason="peer closed"`, "code=3001")
	if !strings.HasPrefix(s.page(), "http://localhost:") {
		t.Errorf("the page is at %s", s.page())
	}
}

func TestChromiumListensAndPublishes(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		missing(t, "chromium is missing (on Debian: apt-get install chromium)")
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(clusterToken), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, "--push-message", "tick", "--push-every", "200ms", "--publish-token-file", file)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<!doctype html><title>elsewhere</title>")
	}))
	defer elsewhere.Close()
	node(t, "playwright-core", "push.mjs", s.page(), elsewhere.URL, chromium, clusterToken)
}
