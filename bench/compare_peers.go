package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// FindPeers looks for the directory of the other libraries' servers, the
// module bench/peers, in dir and the directories around it; "" if there is none.
func FindPeers(dir string) string {
	for {
		peers := filepath.Join(dir, "bench", "peers")
		if _, err := os.Stat(filepath.Join(peers, "go.mod")); err == nil {
			return peers
		}
		up := filepath.Dir(dir)
		if up == dir {
			return ""
		}
		dir = up
	}
}

// BuildPeers builds the servers of FindPeers into the file binary.
func BuildPeers(ctx context.Context, peers, binary string, stderr io.Writer) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-C", peers, "-o", binary, "./servers")
	cmd.Stderr = stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build of the servers in %s: %w", peers, err)
	}
	return nil
}

// pushMark ends the lines of Peers of the servers that can push.
const pushMark = "; pushes"

// Peers asks the servers program which servers it has.
func Peers(ctx context.Context, binary string) ([]Contestant, error) {
	if !strings.Contains(binary, "/") {
		binary = "./" + binary // a file, not a name in PATH
	}
	out, err := exec.CommandContext(ctx, binary, "list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s list: %w", binary, err)
	}
	var all []Contestant
	for line := range bytes.Lines(out) {
		name, about, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		if name != "" {
			c := Contestant{Name: name, About: strings.TrimSpace(about), Args: []string{binary, name, "127.0.0.1:0"}}
			if strings.HasSuffix(about, pushMark) {
				c.Push = append(slices.Clone(c.Args), "push")
			}
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s list names no servers", binary)
	}
	return all, nil
}

// NpmName is the contestant of NpmPeer.
const NpmName = "npm-ws"

// NpmPeer is the npm package ws on node; an error says what it lacks.
func NpmPeer(peers string) (Contestant, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return Contestant{}, errors.New("node is missing")
	}
	b, err := os.ReadFile(filepath.Join(peers, "npm", "node_modules", "ws", "package.json"))
	if err != nil {
		return Contestant{}, fmt.Errorf("the npm package ws is missing; get it with: npm ci --prefix %s", filepath.Join(peers, "npm"))
	}
	var pkg struct{ Version string }
	if err := json.Unmarshal(b, &pkg); err != nil {
		return Contestant{}, fmt.Errorf("the npm package ws: %w", err)
	}
	script := filepath.Join(peers, "servers", "npm-ws.mjs")
	return Contestant{Name: NpmName, About: "npm ws v" + pkg.Version + " on node", Args: []string{node, script, "0"}}, nil
}
