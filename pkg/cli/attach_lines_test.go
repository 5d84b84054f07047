package cli

import (
	"os/exec"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
)

// TestAttachLinesQuote: names that mean something to a shell, to a URI or to QEMU arrive as what they are.
func TestAttachLinesQuote(t *testing.T) {
	const export, socket = "it's, 100%&more", "/my run,dir/nbd.sock"
	var out strings.Builder
	printAttached(&out, control.Attached{Disk: export, Export: export, URI: control.URI(export, socket)})
	for _, want := range []string{
		`nbd-client -unix '/my run,dir/nbd.sock' /dev/nbd0 -N 'it'\''s, 100%&more'`,
		`-drive 'file=nbd+unix:///it%27s%2C%20100%25%26more?socket=/my%20run%2Cdir/nbd.sock,format=raw,if=virtio,discard=unmap'`,
		`nbdfuse nbd/disk 'nbd+unix:///it%27s%2C%20100%25%26more?socket=/my%20run%2Cdir/nbd.sock' &`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in\n%s", want, &out)
		}
	}
}

// TestAttachElsewhere: an export that is not on a unix socket still has its URI printed.
func TestAttachElsewhere(t *testing.T) {
	var out strings.Builder
	printAttached(&out, control.Attached{Disk: "d", URI: "nbds://host/d"})
	if out.String() != "d is attached: nbds://host/d\n" {
		t.Errorf("%q", &out)
	}
}

func TestQuoteIsOneShellWord(t *testing.T) {
	for _, word := range []string{"", "a", "a b", "it's", "$HOME", "`x`", "a\nb", "?*", `\`, "~"} {
		got, err := exec.Command("/bin/sh", "-c", "printf %s "+quote(word)).Output()
		if err != nil || string(got) != word {
			t.Errorf("%q came out as %q: %v", word, got, err)
		}
	}
}

func TestQemuComma(t *testing.T) {
	if got := qemu("a,b,,c"); got != "a,,b,,,,c" {
		t.Error(got)
	}
}
