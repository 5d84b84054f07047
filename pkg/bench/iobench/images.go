package iobench

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// plainImage is an empty, sparse file.
func plainImage(_ context.Context, _ *site, path string, size int64) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := file.Truncate(size); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}

// luksImage is an empty, sparse LUKS volume: a copy of the head of one that is made once, because making one takes the seconds
// that a passphrase should cost.
func luksImage(ctx context.Context, at *site, path string, size int64) error {
	head, err := at.luksHead(ctx)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, head, 0o600); err != nil {
		return err
	}
	return os.Truncate(path, int64(len(head))+size)
}

// luksHead are the bytes before the data of a LUKS volume.
func (at *site) luksHead(ctx context.Context) ([]byte, error) {
	template := filepath.Join(at.run, "template.luks")
	if _, err := os.Stat(template); os.IsNotExist(err) {
		if err := os.WriteFile(at.passphrase(), []byte(rand.Text()), 0o600); err != nil {
			return nil, err
		}
		if err := makeLUKS(ctx, at.passphrase(), template); err != nil {
			return nil, err
		}
	}
	whole, err := os.ReadFile(template)
	if err != nil || len(whole) <= luksData {
		return nil, fmt.Errorf("a LUKS volume of %d bytes: %w", len(whole), err)
	}
	return whole[:len(whole)-luksData], nil
}

// makeLUKS tries a few times, since qemu-img gives up ("Unable to get accurate CPU usage") where the kernel counts a thread's time too
// coarsely for what the passphrase should cost.
func makeLUKS(ctx context.Context, passphrase, path string) (err error) {
	for range 20 {
		_, err = run(ctx, patience, "qemu-img", "create", "-q", "-f", "luks", "--object", "secret,id=key,file="+passphrase,
			"-o", "key-secret=key,cipher-alg=aes-256,cipher-mode=xts,ivgen-alg=plain64,iter-time=10", path, fmt.Sprint(luksData))
		if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "accurate CPU usage") {
			return err
		}
	}
	return err
}

// luksData is how much data the volume has that heads are taken from.
const luksData = 1 << 20

func (at *site) passphrase() string { return filepath.Join(at.run, "passphrase") }

func qemuCommand(at *site, image, socket string, _ int64) *exec.Cmd {
	return exec.Command("qemu-nbd", "--persistent", "--shared=0", "--socket="+socket, "--object", "secret,id=key,file="+at.passphrase(),
		"--image-opts", "driver=luks,key-secret=key,file.driver=file,file.filename="+commas(image))
}

// commas doubles commas, as QEMU wants them in an option's value.
func commas(path string) string { return strings.ReplaceAll(path, ",", ",,") }

func nbdkitCommand(_ *site, image, socket string, _ int64) *exec.Cmd {
	return exec.Command("nbdkit", "--foreground", "--unix="+socket, "file", "file="+image)
}

func nbdkitLUKSCommand(at *site, image, socket string, _ int64) *exec.Cmd {
	return exec.Command("nbdkit", "--foreground", "--unix="+socket, "--filter=luks", "file", "file="+image, "passphrase=+"+at.passphrase())
}
