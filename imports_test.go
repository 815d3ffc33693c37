package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// listed is what go list says of a package.
type listed struct {
	ImportPath string
	Imports    []string
}

const module = "wspoll"

// inner is the path of a package of this module within it; false for others.
func inner(importPath string) (string, bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// ownPackages are all packages of the module, without their tests.
func ownPackages(t *testing.T) map[string]listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatal("go list:", err)
	}
	packages := map[string]listed{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		name, _ := inner(p.ImportPath)
		packages[name] = p
	}
}

// allowed says which packages of this module a package may import. Imports run
// one way: protocol, server, what uses it, main.
var allowed = map[string][]string{
	"frame":     {},
	"handshake": {},
	"epoll":     {},
	"server":    {"frame", "handshake", "epoll"},
	"cluster":   {"server"},
	"proxy":     {"frame", "handshake", "epoll"},
	"bench":     {"frame", "handshake", "epoll", "server"},
	"inspect":   {"frame", "handshake", "server"},
	"client":    {"frame", "handshake"},
	"conform":   {"frame", "handshake", "inspect", "client"},

	"inspect/web": {"frame", "handshake", "inspect", "server"},
}

// codecImports are the imports from outside of the two packages that have no
// IO, ask no clock, start no goroutine and share nothing.
var codecImports = []string{
	"bytes", "crypto/sha1", "encoding/base64", "encoding/binary", "errors", "fmt", "io", "iter", "math/bits", "net/url", "slices",
	"strconv", "strings", "unicode", "unicode/utf8", "unsafe", "compress/flate",
	"github.com/klauspost/compress/flate",
	"github.com/gobwas/ws", "github.com/gobwas/ws/wsflate", "github.com/gobwas/httphead",
}

func TestImportsRunOneWay(t *testing.T) {
	packages := ownPackages(t)
	for name, p := range packages {
		if name == "." {
			continue
		}
		may, known := allowed[name]
		if !known {
			t.Errorf("package %s: decide what it may import, and write it into the table", name)
			continue
		}
		for _, i := range p.Imports {
			if own, ok := inner(i); ok && !slices.Contains(may, own) {
				t.Errorf("%s imports %s, against the direction of imports", name, own)
			}
		}
	}
	for _, name := range []string{"frame", "handshake", "epoll", "server"} {
		if _, ok := packages[name]; !ok {
			t.Errorf("package %s is gone", name)
		}
	}
}

func TestCodecsHaveNoIO(t *testing.T) {
	packages := ownPackages(t)
	for _, name := range []string{"frame", "handshake"} {
		for _, i := range packages[name].Imports {
			if !slices.Contains(codecImports, i) {
				t.Errorf("%s imports %s; it may import only what neither does IO nor asks a clock", name, i)
			}
		}
	}
}

func TestNetpollerStandsOnTheSystemAlone(t *testing.T) {
	for _, i := range ownPackages(t)["epoll"].Imports {
		if first, _, _ := strings.Cut(i, "/"); strings.Contains(first, ".") && !strings.HasPrefix(i, "golang.org/x/sys/") {
			t.Errorf("epoll imports %s, which is neither of the standard library nor of golang.org/x/sys", i)
		}
	}
}

func TestServerKnowsNoNATS(t *testing.T) {
	for name, p := range ownPackages(t) {
		for _, i := range p.Imports {
			if strings.HasPrefix(i, "github.com/nats-io/") && name != "cluster" {
				t.Errorf("%s imports %s; only cluster may", name, i)
			}
		}
	}
}

func TestNoPackageKnowsPrometheus(t *testing.T) {
	for name, p := range ownPackages(t) {
		for _, i := range p.Imports {
			if strings.HasPrefix(i, "github.com/prometheus/") && name != "." {
				t.Errorf("%s imports %s; only the program may, packages have Stats", name, i)
			}
		}
	}
}

func TestPackagesAreNamedForWhatTheyDo(t *testing.T) {
	for name := range ownPackages(t) {
		if slices.Contains([]string{"util", "utils", "common", "types", "manager", "core", "helpers"}, path.Base(name)) {
			t.Errorf("package %s has a name that says nothing", name)
		}
	}
}
