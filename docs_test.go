package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// docStep is a command of a page and what is printed below it.
type docStep struct {
	line    int
	command string
	want    []string
}

// docSteps are the commands in the ```console blocks of a page.
func docSteps(t *testing.T, page string) (steps []docStep) {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	in := false
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		line = strings.TrimSuffix(line, "\n")
		switch command, is := strings.CutPrefix(line, "$ "); {
		case line == "```console":
			in = true
		case strings.HasPrefix(line, "```"):
			in = false
		case !in:
		case is:
			steps = append(steps, docStep{line: n, command: command})
		case len(steps) == 0:
			t.Fatalf("%s:%d: what prints this?", page, n)
		default:
			last := &steps[len(steps)-1]
			last.want = append(last.want, line)
		}
	}
	return steps
}

// matches reports whether the lines are those that the page has: "..." in a line stands for anything, and a line of its
// own for any number of lines.
func matches(want, have []string) bool {
	if len(want) == 0 {
		return len(have) == 0
	}
	if want[0] == "..." {
		for i := range len(have) + 1 {
			if matches(want[1:], have[i:]) {
				return true
			}
		}
		return false
	}
	if len(have) == 0 {
		return false
	}
	pattern := strings.ReplaceAll(regexp.QuoteMeta(want[0]), `\.\.\.`, `.+`)
	return regexp.MustCompile("^"+pattern+"$").MatchString(have[0]) && matches(want[1:], have[1:])
}

// docShell runs the commands of a page, with wspoll as a program and each server on a free port: --listen 127.0.0.1:8002
// becomes --listen 127.0.0.1:0, and the port that was taken stands for 8002 from there on, both ways. What the page's
// server is for publish by default, WSPOLL_SERVER is here.
type docShell struct {
	t     *testing.T
	dir   string
	ports map[string]string // of the page: in fact
	env   []string
}

func newDocShell(t *testing.T) *docShell {
	t.Helper()
	s := &docShell{t: t, dir: t.TempDir(), ports: map[string]string{}}
	bin := t.TempDir()
	self, err := filepath.Abs(os.Args[0])
	if err == nil {
		err = os.Symlink(self, filepath.Join(bin, "wspoll"))
	}
	if err != nil {
		t.Fatal(err)
	}
	s.env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=10", "PATH="+bin+":"+os.Getenv("PATH"))
	return s
}

func (s *docShell) cmd(ctx context.Context, command string) *exec.Cmd {
	for page, real := range s.ports {
		command = strings.ReplaceAll(command, ":"+page, ":"+real)
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Dir, cmd.Env = s.dir, s.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = patience
	return cmd
}

// asOnThePage puts the page's ports in the place of those in fact.
func (s *docShell) asOnThePage(line string) string {
	for page, real := range s.ports {
		line = strings.ReplaceAll(line, ":"+real, ":"+page)
	}
	return line
}

var listenPort = regexp.MustCompile(`--listen 127\.0\.0\.1:(\d+)`)

// background starts a command that ends with &, and reads as many lines as the page has. It runs until the test ends.
func (s *docShell) background(d docStep) (have []string) {
	command := strings.TrimSpace(strings.TrimSuffix(d.command, "&"))
	m := listenPort.FindStringSubmatch(command)
	if m == nil {
		s.t.Fatalf("line %d: a command in the background listens", d.line)
	}
	cmd := s.cmd(context.Background(), "exec "+strings.Replace(command, m[0], "--listen 127.0.0.1:0", 1))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		defer timer.Stop()
		io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			s.t.Errorf("line %d: %s: %v", d.line, d.command, err)
		}
	})
	lines := bufio.NewScanner(out)
	for len(have) < len(d.want) && lines.Scan() {
		line := lines.Text()
		if len(have) == 0 {
			port := regexp.MustCompile(`localhost:(\d+)`).FindStringSubmatch(line)
			if port == nil {
				s.t.Fatalf("line %d: no port in %q", d.line, line)
			}
			s.ports[m[1]] = port[1]
			if len(s.ports) == 1 {
				s.env = append(s.env, "WSPOLL_SERVER=http://127.0.0.1:"+port[1])
			}
		}
		have = append(have, s.asOnThePage(line))
	}
	return have
}

func (s *docShell) run(d docStep) (have []string) {
	if strings.HasSuffix(d.command, "&") {
		return s.background(d)
	}
	out, _ := s.cmd(s.t.Context(), d.command).CombinedOutput() // how it ended shows in what it prints
	for line := range strings.Lines(string(out)) {
		have = append(have, s.asOnThePage(strings.TrimSuffix(line, "\n")))
	}
	return have
}

func TestTheCommandsOfTheProtocolPagePrintWhatItSays(t *testing.T) {
	const page = "docs/protocol.md"
	steps := docSteps(t, page)
	if len(steps) < 20 {
		t.Fatalf("%d commands in %s", len(steps), page)
	}
	s := newDocShell(t)
	for _, d := range steps {
		if have := s.run(d); !matches(d.want, have) {
			t.Errorf("%s:%d: $ %s\nprints\n%s\nand the page has\n%s", page, d.line, d.command, strings.Join(have, "\n"), strings.Join(d.want, "\n"))
		}
	}
}

func TestWhatAPageStandsForMatches(t *testing.T) {
	for _, tt := range []struct {
		want, have string
		ok         bool
	}{
		{"", "", true},
		{"a", "a", true},
		{"a", "b", false},
		{"a", "a\nb", false},
		{"a\nb", "a", false},
		{"a ... c", "a b c", true},
		{"a ... c", "a  c", false},
		{"a.c", "abc", false},
		{"a\n...", "a", true},
		{"a\n...\nz", "a\nb\nc\nz", true},
		{"a\n...\nz", "a\nb\nc", false},
	} {
		lines := func(s string) []string {
			if s == "" {
				return nil
			}
			return strings.Split(s, "\n")
		}
		if matches(lines(tt.want), lines(tt.have)) != tt.ok {
			t.Errorf("%q for %q: not %v", tt.want, tt.have, tt.ok)
		}
	}
}

// link is of Markdown: [`Name`](../file.go), or with Type.Name.
var link = regexp.MustCompile(`\[([^\]]+)\]\(([^)#]+)\)`)

func TestThePagesLinkToWhatIsThere(t *testing.T) {
	for _, page := range []string{"README.md", "docs/protocol.md"} {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, m := range link.FindAllStringSubmatch(string(b), -1) {
			text, target := m[1], m[2]
			if strings.Contains(target, "://") {
				continue
			}
			n++
			source, err := os.ReadFile(filepath.Join(filepath.Dir(page), target))
			if info, e := os.Stat(filepath.Join(filepath.Dir(page), target)); e == nil && info.IsDir() {
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", page, err)
				continue
			}
			name, code := strings.CutPrefix(text, "`")
			if !code || !strings.HasSuffix(target, ".go") || strings.Contains(name, "/") {
				continue
			}
			name = strings.TrimSuffix(name, "`")
			pattern := fmt.Sprintf(`(?m)^(func|type) %s\b`, regexp.QuoteMeta(name))
			if typ, method, ok := strings.Cut(name, "."); ok {
				pattern = fmt.Sprintf(`(?m)^func \(\w+ \*?%s\) %s\(`, typ, method)
			}
			if page != "README.md" && !regexp.MustCompile(pattern).Match(source) {
				t.Errorf("%s: there is no %s in %s", page, name, target)
			}
		}
		if n == 0 {
			t.Errorf("%s: no links were found", page)
		}
	}
}
