package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// What the last steps are about.
const (
	system = "system" // an encrypted image
	web    = "web"    // a server that is made of it
	// bootTime is how long the server may take from its start to its end.
	bootTime = 2 * time.Minute
)

func serverSteps() []step {
	return []step{
		{"An image of a whole system, encrypted as it is imported", importImage},
		{"A server boots from the encrypted image", boot},
		{"Disable the key: the server can't start", disableServer},
		{"Delete the server and its image", deleteServer},
	}
}

// noServer says what the last steps would take.
func noServer(_ context.Context, t *tour) error {
	for _, why := range t.bootable.lacking {
		t.tell.note("It takes more than there is: " + why + ".")
	}
	return nil
}

// importImage makes a disk that boots, imports it, and removes what was in clear.
func importImage(ctx context.Context, t *tour) error {
	t.tell.note(fmt.Sprintf("(this program makes a disk image with syslinux: %s, itself as all of the system, and the word %q)", t.bootable.kernel, t.letters.word))
	dir := t.path("boot")
	file, err := t.bootable.bootImage(ctx, dir, t.self, t.letters.word)
	if err != nil {
		return fmt.Errorf("making an image: %w", err)
	}
	known, err := scanFile(file, []byte(t.letters.word))
	if err != nil {
		return err
	}
	if err := t.tell.all(check{known.hits > 0, fmt.Sprintf("the word stands in that file, %d times", known.hits), "no hit"}); err != nil {
		return err
	}
	image, err := ask[control.Image](ctx, t, "image", "create", system, "--from-file", file, "--key", ownKey)
	if err != nil {
		return err
	}
	err = t.tell.all(check{image.Encrypted && image.Key != nil && image.Key.Alias == ownKey, "image " + system + " is encrypted, under " + ownKey, image})
	if err != nil {
		return err
	}
	if err := t.tool(ctx, "rm", "-r", dir); err != nil {
		return err
	}
	return t.nowhere()
}

// nowhere looks for the image's word in all that is stored.
func (t *tour) nowhere() error {
	all, err := scanTree(t.dir, []byte(t.letters.word))
	if err != nil {
		return err
	}
	return t.tell.all(check{all.hits == 0, fmt.Sprintf("in all %d files (%s) the word stands 0 times", all.files, mib(all.bytes)), all.in})
}

// boot has the server read its disk, which only the word that it says can show.
func boot(ctx context.Context, t *tour) error {
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	server, err := ask[control.Server](ctx, t, "server", "create", web, "--image", system, "--memory", "256M", "--network", "none")
	if err != nil {
		return err
	}
	follows := len(server.Disks) == 1 && server.Disks[0].Encrypted && server.Disks[0].Key != nil && server.Disks[0].Key.Alias == ownKey
	if err := t.tell.all(check{follows, "its system disk is encrypted as the image is, under " + ownKey, server.Disks}); err != nil {
		return err
	}
	if err := t.startServer(ctx); err != nil {
		return err
	}
	said, err := t.talk(ctx)
	if err != nil {
		return err
	}
	if err := t.tell.all(check{strings.Contains(said, guestSays+t.letters.word), "it has booted: only who reads the image knows that word", said}); err != nil {
		return err
	}
	return t.serverEnds(ctx)
}

// startServer starts what runs the server, in the foreground, so that it ends with the tour; it says that the server runs.
func (t *tour) startServer(ctx context.Context) error {
	words := []string{"server", "start", web, "--foreground"}
	t.tell.beside(append([]string{"nbdcrypt"}, words...)...)
	out, in, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer out.Close()
	t.server, err = t.launch(in, append(append([]string{t.self}, words...), "--json")...)
	in.Close()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = out.SetReadDeadline(time.Now()) })()
	var server control.Server
	if err := json.NewDecoder(out).Decode(&server); err != nil {
		return fmt.Errorf("the server did not start: %w", err)
	}
	return t.tell.all(check{server.Status == control.ServerRunning, "QEMU runs it (" + server.Accelerator + "), its disk is attached", server})
}

// talk shows what the server says on its console, and answers once it has said the word: that switches it off.
func (t *tour) talk(ctx context.Context) (said string, err error) {
	t.tell.command("nbdcrypt", "server", "console", web)
	cmd := t.quiet(exec.CommandContext(ctx, t.self, "server", "console", web))
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	said = t.answer(out, in)
	if err := cmd.Wait(); err != nil {
		return said, fmt.Errorf("nbdcrypt server console: %w: %s", err, bytes.TrimSpace(complaint.Bytes()))
	}
	return said, nil
}

// answer reads a console to its end, and answers the word.
func (t *tour) answer(console io.Reader, in io.Writer) string {
	var said strings.Builder
	for from := bufio.NewReader(console); ; {
		line, err := from.ReadString('\n')
		said.WriteString(line)
		if text := strings.Trim(line, "\r\n"); text != "" && !strings.Contains(text, "\x1b") {
			t.tell.said(text)
		}
		if strings.Contains(line, guestSays) {
			_, _ = io.WriteString(in, "\n") // a console that has gone is what the next read tells
		}
		if err != nil {
			return said.String()
		}
	}
}

// serverEnds waits for the end of the server that has switched itself off.
func (t *tour) serverEnds(ctx context.Context) error {
	if err := t.server.Wait(ctx); err != nil {
		return err
	}
	how := t.server.How()
	t.server = nil
	if err := t.tell.all(check{how == nil, "it has switched itself off, and what ran it has ended", how}); err != nil {
		return err
	}
	server, err := ask[control.Server](ctx, t, "server", "show", web)
	if err != nil {
		return err
	}
	gone := server.Status == control.ServerStopped && len(server.Disks) == 1 && server.Disks[0].Status == "available"
	if err := t.tell.all(check{gone, "the server is stopped, its disk detached and the key wiped", server}); err != nil {
		return err
	}
	return t.nowhere()
}

// disableServer disables the key that the server's disk is under.
func disableServer(ctx context.Context, t *tour) error {
	if err := t.do(ctx, "key", "disable", ownKey); err != nil {
		return err
	}
	if err := t.refused(ctx, refusal.KeyForbids, "server", "start", web); err != nil {
		return err
	}
	return t.do(ctx, "key", "enable", ownKey)
}

func deleteServer(ctx context.Context, t *tour) error {
	for _, args := range [][]string{{"server", "delete", web, "--yes"}, {"image", "delete", system, "--yes"}} {
		if err := t.do(ctx, args...); err != nil {
			return err
		}
	}
	left, err := ask[[]control.Disk](ctx, t, "disk", "list")
	if err != nil {
		return err
	}
	return t.tell.all(check{len(left) == 0, "its disk is gone with it", left})
}
