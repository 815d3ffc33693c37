package peers

import (
	"context"
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

func TestChromiumOpensThePage(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		missing(t, "chromium is missing (on Debian: apt-get install chromium)")
	}
	s := start(t)
	shots, err := filepath.Abs(t.ArtifactDir())
	if err != nil {
		t.Fatal(err)
	}
	node(t, "playwright-core", "page.mjs", s.page(), chromium, shots)
	s.logged(`reason="peer closed"`, "code=3001")
	if !strings.HasPrefix(s.page(), "http://localhost:") {
		t.Errorf("the page is at %s", s.page())
	}
}
