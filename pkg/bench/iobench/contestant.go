package iobench

import (
	"context"
	"os/exec"
	"strings"
)

// The names of the servers.
const (
	ourselves   = "nbdcrypt"
	qemuLUKS    = "qemu-luks"
	nbdkitLUKS  = "nbdkit-luks"
	nbdkitPlain = "nbdkit"
	goNBD       = "go-nbd"
)

// contestant is a kind of server that is measured.
type contestant struct {
	name  string
	about string
	tools []tool
	// version is the command that says which version it is; without one it is a part of this program.
	version []string
	// start starts a server of disks at a site.
	start func(ctx context.Context, at *site) (server, error)
}

// server makes disks and serves them, until it is closed.
type server interface {
	// disk serves a new disk that is empty.
	disk(ctx context.Context, size int64) (*export, error)
	// close ends what is common to all disks; each disk was closed before.
	close(ctx context.Context)
}

// export is a disk that is served.
type export struct {
	uri string
	pid int // of the process that serves it
	// ended tells how the process ended, nil while it runs.
	ended func() error
	close func(ctx context.Context)
	flags abilities
}

// tool is a program that has to be installed.
type tool struct{ name, pack string }

func (t tool) missing() bool {
	_, err := exec.LookPath(t.name)
	return err != nil
}

// Missing is what could not be measured, for want of a program.
type Missing struct {
	What    string `json:"what"`
	Tool    string `json:"tool"`
	Package string `json:"package"`
}

// lacks are those of the tools that are not installed.
func lacks(what string, tools []tool) (missing []Missing) {
	for _, t := range tools {
		if t.missing() {
			missing = append(missing, Missing{What: what, Tool: t.name, Package: t.pack})
		}
	}
	return missing
}

// peers are the servers beside ours.
func peers() []contestant {
	img, kit := tool{"qemu-img", "qemu-utils"}, tool{"nbdkit", "nbdkit"}
	return []contestant{
		{name: qemuLUKS, about: "qemu-nbd, LUKS", tools: []tool{img, {"qemu-nbd", "qemu-utils"}}, version: []string{"qemu-nbd", "--version"}, start: newPeer(luksImage, qemuCommand)},
		{name: nbdkitLUKS, about: "nbdkit, luks filter", tools: []tool{img, kit}, version: []string{"nbdkit", "--version"}, start: newPeer(luksImage, nbdkitLUKSCommand)},
		{name: nbdkitPlain, about: "nbdkit, plain file", tools: []tool{kit}, version: []string{"nbdkit", "--version"}, start: newPeer(plainImage, nbdkitCommand)},
		{name: goNBD, about: "go-nbd, on our encrypted device", start: newPeer(nil, goNBDCommand)},
	}
}

func us() contestant {
	return contestant{name: ourselves, about: "nbdcrypt serve, encrypted disk", start: startOurs}
}

// Peers are the names of all servers beside ours.
func Peers() []string { return names(peers(), contestant.called) }

func (c contestant) called() string { return c.name }

// says is the version of a program, in its own words.
func says(ctx context.Context, words []string) string {
	out, err := run(ctx, patience, words...)
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(first)
}
