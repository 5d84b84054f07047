package iobench

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// Machine is what was measured on.
type Machine struct {
	Processor  string `json:"processor"`
	Processors int    `json:"processors"`
	Memory     int64  `json:"memory"`
	Kernel     string `json:"kernel"`
}

func thisMachine() Machine {
	return Machine{Processor: field("/proc/cpuinfo", "model name"), Processors: runtime.NumCPU(), Memory: memory().Total, Kernel: kernel()}
}

func kernel() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(release))
}

// field is the value of the first line "NAME : VALUE" in a file of /proc, or empty.
func field(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return value(string(text), name)
}

func value(text, name string) string {
	for line := range strings.Lines(text) {
		if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// kibibytes reads a value like "1234 kB" as bytes; 0 is none.
func kibibytes(text string) int64 {
	n, err := strconv.ParseInt(strings.TrimSuffix(text, " kB"), 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}

// ram is the machine's memory in bytes.
type ram struct{ Total, Available int64 }

func memory() ram {
	return ram{kibibytes(field("/proc/meminfo", "MemTotal")), kibibytes(field("/proc/meminfo", "MemAvailable"))}
}

// ownVersion is that of this program, with the revision that it was built from.
func ownVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			version += " " + setting.Value
		}
	}
	return version
}

// moduleVersion is that of a module in this program.
func moduleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, module := range info.Deps {
		if module.Path == path {
			return module.Version
		}
	}
	return "unknown"
}
