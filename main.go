// wspoll is a WebSocket server on epoll. Without a command it serves.
package main

import (
	"os"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:])) }

// commands is the table of all commands; the first is also what plain wspoll does.
func commands() []*cobra.Command {
	return []*cobra.Command{
		serveCommand(),
		proxyCommand(),
		connectCommand(),
		publishCommand(),
		topicsCommand(),
		benchCommand(),
		conformCommand(),
		inspectCommand(),
		frameCommand(),
		acceptCommand(),
	}
}
