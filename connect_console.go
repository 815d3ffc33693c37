package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"unicode/utf8"

	"golang.org/x/term"
)

// console is the terminal of a person: a line that is being typed stays whole while other lines come above it.
type console struct {
	in     *os.File
	out    *os.File
	before *term.State
	editor *term.Terminal
	resize chan os.Signal
	rest   []byte // of a line that was not read yet
	cut    bool   // what is being typed is longer than maxTyped; of the goroutine that reads

	mu     sync.Mutex
	closed bool
}

// maxTyped is how many characters of a line the editor takes. It drops the rest without a word.
const maxTyped = 4096

// openConsole switches the terminal to single keys. It returns nil if there is none to write to.
func openConsole(stdin io.Reader, stdout, stderr io.Writer) *console {
	in, ok := stdin.(*os.File)
	out := stdout
	if !isTerm(out) {
		out = stderr
	}
	if !ok || !isTerm(in) || !isTerm(out) {
		return nil
	}
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil
	}
	k := &console{in: in, out: out.(*os.File), before: before, resize: make(chan os.Signal, 1)}
	k.editor = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{in, out}, "> ")
	k.editor.AutoCompleteCallback = func(line string, _ int, key rune) (string, int, bool) {
		k.cut = k.cut && line != "" || key >= ' ' && utf8.ValidRune(key) && utf8.RuneCountInString(line) >= maxTyped
		return "", 0, false
	}
	signal.Notify(k.resize, syscall.SIGWINCH)
	k.resize <- syscall.SIGWINCH
	go func() {
		for range k.resize {
			if width, height, err := term.GetSize(int(k.out.Fd())); err == nil && width > 0 && height > 0 {
				k.editor.SetSize(width, height)
			}
		}
	}()
	return k
}

// shows reports whether what is written to w appears on the console.
func (k *console) shows(w io.Writer) bool { return w == io.Writer(k.out) }

// Write writes whole lines above the one that is being typed.
func (k *console) Write(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return k.out.Write(b)
	}
	return k.editor.Write(b)
}

// Read gives what was typed, whole lines; one that the editor has cut is told and not given. At Ctrl-C and Ctrl-D it is io.EOF, and the terminal is what it was before, so
// that a further Ctrl-C is a signal.
func (k *console) Read(b []byte) (int, error) {
	for len(k.rest) == 0 {
		line, err := k.editor.ReadLine()
		if err != nil {
			k.close()
			return 0, err
		}
		if k.cut {
			k.cut = false
			fmt.Fprintf(k, "not sent: a line that is typed has at most %d characters; a longer message comes from a pipe\n", maxTyped)
			continue
		}
		k.rest = []byte(line + "\n")
	}
	n := copy(b, k.rest)
	k.rest = k.rest[n:]
	return n, nil
}

// close makes the terminal what it was before, and takes the prompt away.
func (k *console) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	k.closed = true
	signal.Stop(k.resize)
	close(k.resize)
	io.WriteString(k.out, "\r\x1b[K")
	term.Restore(int(k.in.Fd()), k.before)
}
