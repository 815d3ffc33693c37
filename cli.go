package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The rules of talking to people: data goes to stdout, everything else to
// stderr. An error is one line that says what failed, with which value, and
// what to do. Exit status 2: the command was called wrong; 1: it failed.

const (
	exitOK    = 0
	exitFail  = 1
	exitUsage = 2
)

// failure is an error with exit status 1; all others are about usage.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// failed makes a failure out of err, unless it is nil.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return failure{err}
}

// run is the program, without its exit.
func run(args []string) int { return execute(args, os.Stdout, os.Stderr) }

// aboutFlags is what all commands have in common, for their help.
const aboutFlags = `Every flag has a twin in the
environment: --max-message is WSPOLL_MAX_MESSAGE; WSPOLL_SERVER is that of publish and
topics. A flag that is given wins. Where a flag is repeatable, commas separate values too.`

func execute(args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "wspoll",
		Short: "A WebSocket server on epoll: frames by hand, very many idle connections for nearly nothing",
		Long: `A WebSocket server on epoll: frames by hand, very many idle connections for nearly nothing.

Without a command it serves, as "wspoll serve" does. ` + aboutFlags,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          unknownCommand,
	}
	all := commands()
	root.AddCommand(all...)
	root.RunE = all[0].RunE
	root.Flags().SortFlags = false
	root.Flags().AddFlagSet(all[0].Flags())
	root.SetFlagErrorFunc(flagError)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return fromEnvironment(cmd.Flags()) }
	cmd, err := root.ExecuteC()
	if err == nil {
		return exitOK
	}
	if bad, ok := errors.AsType[*badValue](err); ok {
		bad.fromEnv = wasFromEnvironment(cmd.Flags(), bad.flag)
	}
	fmt.Fprintln(stderr, "wspoll: "+harmless(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")))
	var f failure
	if errors.As(err, &f) {
		return exitFail
	}
	return exitUsage
}

// unknownCommand refuses arguments of a command that takes none.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	what := "a command"
	if cmd.HasParent() {
		what = "an argument of " + cmd.CommandPath()
	}
	return fmt.Errorf("%q is not %s; see %s --help", args[0], what, cmd.CommandPath())
}

// badValue is an error about the value of a flag. It names the flag, or the
// variable if the value came from there.
type badValue struct {
	flag    string // its name, without dashes
	value   string
	want    string // what the value must be
	fromEnv bool
}

func (e *badValue) Error() string {
	if e.fromEnv {
		return fmt.Sprintf("%s=%s: must be %s", variable(e.flag), shown(e.value), e.want)
	}
	return fmt.Sprintf("--%s %s: must be %s", e.flag, shown(e.value), e.want)
}

// shown is s in a message: as it is if it cannot be misread, else quoted.
func shown(s string) string {
	for _, r := range s {
		if r <= ' ' || r > '~' || r == '"' {
			return strconv.Quote(s)
		}
	}
	if s == "" {
		return `""`
	}
	return s
}

// harmless is s with escapes for what could steer a terminal: an error may have
// words of the other side in it, such as the names in its certificate.
func harmless(s string) string {
	var b strings.Builder
	for _, c := range s {
		if unicode.IsGraphic(c) {
			b.WriteRune(c)
			continue
		}
		quoted := strconv.QuoteRuneToGraphic(c)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// jsonControls escapes the control characters that encoding/json leaves as they
// are, DEL and U+0080 to U+009F: a terminal may be steered by them, too.
var jsonControls = func() *strings.Replacer {
	pairs := []string{"\x7f", `\u007f`}
	for c := rune(0x80); c <= 0x9f; c++ {
		pairs = append(pairs, string(c), fmt.Sprintf(`\u%04x`, c))
	}
	return strings.NewReplacer(pairs...)
}()

// flagError says what is wrong with a flag in words for people.
func flagError(cmd *cobra.Command, err error) error {
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return &badValue{flag: e.GetFlag().Name, value: e.GetValue(), want: wanted(e.GetFlag(), e.Unwrap())}
	}
	return fmt.Errorf("%w; see %s --help", err, cmd.Root().Name())
}

// wanted says what a value of f must be; err is why one was not taken.
func wanted(f *pflag.Flag, err error) string {
	switch f.Value.Type() {
	case "int", "uint64":
		return "a whole number"
	case "float64":
		return "a number"
	case "bool":
		return "true or false"
	case "duration":
		return "a time like 500ms, 5s, 2m or 1h30m"
	case "bytes":
		return "a number of bytes like 4096, 8KiB, 16MiB or 1GiB"
	}
	return "one value, or several with commas between them: " + err.Error()
}

// variable is the name of a flag's twin in the environment.
func variable(flag string) string {
	return "WSPOLL_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// envMark is the annotation of a flag whose value came from its variable.
const envMark = "wspoll-environment"

func wasFromEnvironment(flags *pflag.FlagSet, name string) bool {
	f := flags.Lookup(name)
	return f != nil && f.Annotations[envMark] != nil
}

// perCall is the annotation of a flag that has no twin: what it says is of one
// call, and another command has a twin of its name.
const perCall = "wspoll-per-call"

// fromEnvironment gives each flag that was not given the value of its WSPOLL_*
// twin, if there is one.
func fromEnvironment(flags *pflag.FlagSet) (err error) {
	flags.VisitAll(func(f *pflag.Flag) {
		value, ok := os.LookupEnv(variable(f.Name))
		if f.Changed || !ok || err != nil || f.Name == "help" || f.Annotations[perCall] != nil {
			return
		}
		err = flags.SetAnnotation(f.Name, envMark, []string{})
		if e := flags.Set(f.Name, value); e != nil {
			err = flagError(nil, e)
		}
	})
	return err
}

// byteSize is a flag for a number of bytes: 4096, 8KiB, 16MiB, 1GiB.
type byteSize int64

var units = []struct {
	suffix string
	size   int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

func (b *byteSize) Set(s string) error {
	number, factor := s, int64(1)
	for _, u := range units {
		if head, ok := strings.CutSuffix(s, u.suffix); ok {
			number, factor = head, u.size
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/factor {
		return fmt.Errorf("%q is not a number of bytes", s)
	}
	*b = byteSize(n * factor)
	return nil
}

func (b *byteSize) String() string {
	for _, u := range units {
		if n := int64(*b); n >= u.size && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(*b), 10)
}

func (b *byteSize) Type() string { return "bytes" }
