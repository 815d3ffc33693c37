package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

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

func execute(args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "wspoll",
		Short: "A WebSocket server on epoll: frames by hand, very many idle connections for nearly nothing",
		Long: `A WebSocket server on epoll: frames by hand, very many idle connections for nearly nothing.

Without a command it serves, as "wspoll serve" does. Every flag has a twin in the
environment: --max-message is WSPOLL_MAX_MESSAGE. A flag that is given wins.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          unknownCommand,
	}
	all := commands()
	root.AddCommand(all...)
	root.RunE = all[0].RunE
	root.Flags().AddFlagSet(all[0].Flags())
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return fromEnvironment(cmd.Flags()) }
	err := root.Execute()
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(stderr, "wspoll: "+strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "))
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
	return fmt.Errorf("%q is not a command; see %s --help", args[0], cmd.Root().Name())
}

// fromEnvironment gives each flag that was not given the value of its WSPOLL_*
// twin, if there is one.
func fromEnvironment(flags *pflag.FlagSet) (err error) {
	flags.VisitAll(func(f *pflag.Flag) {
		name := "WSPOLL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, ok := os.LookupEnv(name)
		if f.Changed || !ok || err != nil || f.Name == "help" {
			return
		}
		if e := flags.Set(f.Name, value); e != nil {
			err = fmt.Errorf("%s=%q: %w", name, value, errors.Unwrap(e))
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
		return fmt.Errorf("%q is not a number of bytes; write it like 4096, 8KiB, 16MiB or 1GiB", s)
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
