package peers

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// office is an operator of NATS, who signs accounts, which sign users.
type office struct {
	t        *testing.T
	operator nkeys.KeyPair
	claims   *jwt.OperatorClaims
	system   string   // account, without which there is no JetStream
	signed   string   // and its claims
	seeds    []string // what must not be in any log
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{t: t}
	var err error
	if o.operator, err = nkeys.CreateOperator(); err != nil {
		t.Fatal(err)
	}
	o.claims = jwt.NewOperatorClaims(o.public(o.operator))
	signed, err := o.claims.Encode(o.operator)
	if err != nil {
		t.Fatal(err)
	}
	if o.claims, err = jwt.DecodeOperatorClaims(signed); err != nil {
		t.Fatal(err)
	}
	system, signed := o.sign(jwt.JetStreamLimits{})
	o.system, o.signed = o.public(system), signed
	return o
}

func (o *office) public(k nkeys.KeyPair) string {
	o.t.Helper()
	s, err := k.PublicKey()
	if err != nil {
		o.t.Fatal(err)
	}
	return s
}

// sign makes an account, and what its operator says of it.
func (o *office) sign(limits jwt.JetStreamLimits) (account nkeys.KeyPair, signed string) {
	o.t.Helper()
	account, err := nkeys.CreateAccount()
	if err != nil {
		o.t.Fatal(err)
	}
	c := jwt.NewAccountClaims(o.public(account))
	c.Limits.JetStreamLimits = limits
	if signed, err = c.Encode(o.operator); err != nil {
		o.t.Fatal(err)
	}
	return account, signed
}

// accounts is a place where NATS looks for accounts, with the system's.
func (o *office) accounts() natsserver.AccountResolver {
	o.t.Helper()
	r := &natsserver.MemAccResolver{}
	if err := r.Store(o.system, o.signed); err != nil {
		o.t.Fatal(err)
	}
	return r
}

// account makes an account with JetStream, and puts it where NATS looks.
func (o *office) account(resolver natsserver.AccountResolver) nkeys.KeyPair {
	o.t.Helper()
	k, signed := o.sign(jwt.JetStreamLimits{MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit})
	if err := resolver.Store(o.public(k), signed); err != nil {
		o.t.Fatal(err)
	}
	return k
}

// creds are the credentials of a new user of an account, as nsc writes them.
func (o *office) creds(account nkeys.KeyPair) []byte {
	o.t.Helper()
	k, err := nkeys.CreateUser()
	if err != nil {
		o.t.Fatal(err)
	}
	seed, err := k.Seed()
	if err != nil {
		o.t.Fatal(err)
	}
	signed, err := jwt.NewUserClaims(o.public(k)).Encode(account)
	if err != nil {
		o.t.Fatal(err)
	}
	b, err := jwt.FormatUserConfig(signed, seed)
	if err != nil {
		o.t.Fatal(err)
	}
	o.seeds = append(o.seeds, string(seed), signed)
	return b
}

// hidden checks that nothing secret is in a text.
func (o *office) hidden(what, text string) {
	o.t.Helper()
	for _, s := range o.seeds {
		if strings.Contains(text, s) {
			o.t.Errorf("%s has something secret: %s", what, text)
		}
	}
}

// startNATSWithOperator is a NATS that knows users by what the operator's
// accounts have signed.
func startNATSWithOperator(t *testing.T, o *office, resolver natsserver.AccountResolver) *natsRoom {
	t.Helper()
	n := startNATS(t, true)
	n.stop()
	n.opts.Username, n.opts.Password = "", ""
	n.opts.TrustedOperators = []*jwt.OperatorClaims{o.claims}
	n.opts.AccountResolver, n.opts.SystemAccount = resolver, o.system
	n.start()
	return n
}

func (n *natsRoom) plainURL() string { return fmt.Sprintf("nats://127.0.0.1:%d", n.opts.Port) }

func TestCredentialsOfNATS(t *testing.T) {
	o := newOffice(t)
	resolver := o.accounts()
	account := o.account(resolver)
	n := startNATSWithOperator(t, o, resolver)
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good := o.creds(account)
	file := write("good.creds", good)
	stranger, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"of an account that NATS does not know", []string{"--nats-creds", write("stranger.creds", o.creds(stranger))}, "--nats: NATS at " + n.plainURL() + " cannot be reached: nats: Authorization Violation"},
		{"none", nil, "--nats: NATS at " + n.plainURL() + " cannot be reached: nats: Authorization Violation"},
		{"no file", []string{"--nats-creds", filepath.Join(dir, "none")}, "--nats-creds cannot be read: open "},
		{"a directory", []string{"--nats-creds", dir}, "cannot be reached: "},
		{"no credentials", []string{"--nats-creds", write("empty", nil)}, "cannot be reached: "},
		{"without the seed", []string{"--nats-creds", write("half", good[:strings.Index(string(good), "-----BEGIN USER NKEY")])}, "cannot be reached: "},
		{"with half a seed", []string{"--nats-creds", write("cut", []byte(strings.Replace(string(good), o.seeds[0], o.seeds[0][:40], 1)))}, "cannot be reached: "},
	} {
		out, err := runWspoll(append([]string{"--listen", "127.0.0.1:0", "--nats", n.plainURL()}, tt.args...)...)
		exit, _ := errors.AsType[*exec.ExitError](err)
		if exit == nil || exit.ExitCode() != 1 || !strings.Contains(out, tt.want) || strings.Count(strings.TrimSpace(out), "\n") > 0 {
			t.Errorf("%s: %v: %s", tt.name, err, out)
		}
		o.hidden(tt.name, out)
		o.hidden(tt.name, strings.ReplaceAll(out, o.seeds[0][:40], o.seeds[0]))
	}

	a, b := n.join("--nats", n.plainURL(), "--nats-creds", file), n.join("--nats", n.plainURL(), "--nats-creds", write("other.creds", o.creds(account)))
	f := counting(b)[0]
	if p := a.post("news", "one"); p.status != http.StatusOK || p.Seq == 0 {
		t.Errorf("%+v", p)
	}
	f.has("one")

	// A NATS comes back that knows other accounts only: we are not wanted, and
	// go on asking. It asks for credentials again, and finds those that are in
	// the file now.
	n.stop()
	empty := o.accounts()
	n.opts.AccountResolver = empty
	n.start()
	asked := &refusals{came: make(chan string, 100)}
	n.srv.SetLogger(asked, false, false)
	a.health("degraded: the link to NATS is down")
	if p := a.post("news", "two"); p.status != http.StatusAccepted {
		t.Errorf("%+v", p)
	}
	for range 8 { // of both servers: more than one of each
		select {
		case <-asked.came:
		case <-time.After(patience):
			t.Fatal("the servers do not ask any more")
		}
	}
	a.logged("level=WARN", "authorization violation")
	b.logged("level=WARN", "authorization violation")
	other := o.account(empty)
	if err := os.WriteFile(file, o.creds(other), 0o600); err != nil {
		t.Fatal(err)
	}
	write("other.creds", o.creds(other))
	a.health("ok")
	b.health("ok")
	f.until("two with a number", func(lines []string) bool { k, _ := rising(t, lines); return k["two"] > 0 })
	for _, s := range []*server{a, b} {
		s.stop()
		o.hidden("the log", strings.Join(s.log.lines, "\n"))
		var said int
		for _, l := range s.log.lines {
			if strings.Contains(strings.ToLower(l), "authorization violation") {
				said++
			}
		}
		if said > 1 {
			t.Errorf("the same refusal is logged %d times", said)
		}
	}
}

// refusals gets the errors that NATS logs.
type refusals struct{ came chan string }

func (r *refusals) Errorf(format string, v ...any) {
	select {
	case r.came <- fmt.Sprintf(format, v...):
	default: // enough of them
	}
}
func (r *refusals) Noticef(string, ...any) {}
func (r *refusals) Warnf(string, ...any)   {}
func (r *refusals) Fatalf(string, ...any)  {}
func (r *refusals) Debugf(string, ...any)  {}
func (r *refusals) Tracef(string, ...any)  {}
