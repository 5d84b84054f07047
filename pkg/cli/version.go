package cli

import (
	"fmt"
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Version tells which build this is.
type Version struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Revision string `json:"revision"`
}

// BuildVersion is the version of the running program.
func BuildVersion() Version {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Version{Version: "unknown"}
	}
	v := Version{Version: info.Main.Version, Go: info.GoVersion}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			v.Revision = setting.Value
		}
	}
	return v
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print which build this is",
		Long:    "Print the version of this program. `nbdcrypt status` prints that of the daemon.",
		Example: "  nbdcrypt version --json",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			v := BuildVersion()
			return a.result(cmd, v, func(w io.Writer) { fmt.Fprintln(w, "nbdcrypt", v.Version, v.Go, v.Revision) })
		}),
	}
}
