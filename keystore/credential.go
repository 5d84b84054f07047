package keystore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

const (
	kindCredential = "credential"
	// Credential is what a credential is called where nobody says otherwise.
	Credential = "nbdcrypt.root"
	// credentialDirectory is where systemd says in which folder a service's credentials lie, in clear, in memory that is not swapped.
	credentialDirectory = "CREDENTIALS_DIRECTORY"

	minCredential = 32
	maxCredential = 1024
)

// credentialRule is what systemd takes for a file name there, less what would need quoting in a unit file.
var credentialRule = regexp.MustCompile(`^[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,99}$`)

// credentialWay takes the bytes of a systemd credential, without a line feed at their end.
type credentialWay struct{ name string }

func parseCredential(l *lines) way { return credentialWay{l.next("credential")} }

func (w credentialWay) lines() string { return "credential " + w.name + "\n" }

func (w credentialWay) check() error {
	if !credentialRule.MatchString(w.name) {
		return fmt.Errorf("%.100q can't be the name of a credential", w.name)
	}
	return nil
}

func (w credentialWay) detail() string { return "the credential " + w.name + " of systemd" }

func (credentialWay) automatic() bool { return true }

func (w credentialWay) path() (string, error) {
	dir := os.Getenv(credentialDirectory)
	if dir == "" {
		return "", errors.New("the daemon was started without credentials ($" + credentialDirectory + " is not set)")
	}
	return filepath.Join(dir, w.name), nil
}

func (w credentialWay) ready() error {
	path, err := w.path()
	if err == nil {
		_, err = os.Stat(path)
	}
	return err
}

func (w credentialWay) release(_ context.Context, given *secret.Key) (*secret.Key, error) {
	why := secret.Purpose{Kind: "derived", For: "opening or making a credential slot"}
	if given != nil {
		return copySecret(given, why)
	}
	path, err := w.path()
	if err != nil {
		return nil, err
	}
	buf, err := secret.Work(maxCredential+2, why)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	defer buf.Destroy()
	n, err := readCredential(path, buf.Bytes())
	if err != nil {
		return nil, fmt.Errorf("keystore: the credential %s: %w", w.name, err)
	}
	own, err := secret.Work(n, why)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	secret.Do(func() { move(own.Bytes(), buf.Bytes()) })
	return own, nil
}

// readCredential reads a file straight into key memory.
func readCredential(path string, b []byte) (n int, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if n, err = readFull(fd, b); err != nil {
		return 0, err
	}
	if n > 0 && b[n-1] == '\n' {
		n--
	}
	return n, checkCredential(n)
}

func checkCredential(n int) error {
	if n < minCredential || n > maxCredential {
		return fmt.Errorf("it has %d bytes, and %d to %d are taken", n, minCredential, maxCredential)
	}
	return nil
}

// AddCredential makes a slot that a credential of systemd opens: one that somebody gave, else one that is made here, as hex, which
// nothing here keeps. The caller wipes both.
func (r *Root) AddCredential(ctx context.Context, name, credential string, given *secret.Key) (info SlotInfo, made *secret.Key, err error) {
	w := credentialWay{credential}
	if err := w.check(); err != nil {
		return info, nil, refusal.New(refusal.Usage, "use 1 to 100 letters, digits, '.', '_' or '-'", "%w", err)
	}
	if given != nil {
		if err := checkCredential(given.Len()); err != nil {
			return info, nil, refusal.New(refusal.Usage, "let the daemon make it, or give random bytes", "the credential: %w", err)
		}
	}
	if given == nil {
		if made, err = makeCredential(); err != nil {
			return info, nil, fullRefusal(err)
		}
		given = made
	}
	info, err = r.addSlot(ctx, kindCredential, name, func(slot) (fresh, error) {
		wrapping, err := w.release(ctx, given)
		return fresh{w, wrapping, given}, err
	})
	if err != nil && made != nil {
		made.Destroy()
		made = nil
	}
	return info, made, err
}

// makeCredential makes 32 random bytes, written as hex.
func makeCredential() (*secret.Key, error) {
	why := secret.Purpose{Kind: "credential", For: "making a credential slot"}
	random, err := secret.RandomWork(keySize, why)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	defer random.Destroy()
	text, err := secret.Work(2*keySize, why)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	secret.Do(func() {
		for i, b := range random.Bytes() {
			text.Bytes()[2*i], text.Bytes()[2*i+1] = hexDigit(b>>4), hexDigit(b&15)
		}
	})
	return text, nil
}

// hexDigit looks up nothing.
func hexDigit(n byte) byte { return '0' + n + ('a'-'0'-10)&-((9-n)>>7) }
