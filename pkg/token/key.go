package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"nbdcrypt/pkg/refusal"
)

// limit is how long a helper may take: what waits for it must not wait for a token that hangs. Tests lower it.
var limit = 3500 * time.Millisecond

var (
	// ErrAway says that the token could not be asked. It is no sign of damage: another time it may.
	ErrAway = errors.New("the token can't be used now")
	// ErrAltered says that the token was asked, and that its key did not seal this.
	ErrAltered = errors.New("token: it was altered, moved here, or sealed under another key")
)

// A Key is a key on a token. Its methods may be called from many goroutines; what they return for a token that can't be used is a
// refusal that wraps ErrAway.
type Key struct {
	uri URI
	// run does the asking; tests have others.
	run func(ctx context.Context, r Request, take func(io.Reader) error) (Answer, string, error)
}

// wrong are the files of PINs, by the tokens that they are for, as they were when a token said that the PIN is wrong. Giving them again and
// again would lock the token, whoever asks.
var (
	wrong   = map[string]os.FileInfo{}
	wrongMu sync.Mutex
)

// New names a key; nothing is asked yet.
func New(uri URI) *Key { return &Key{uri: uri, run: run} }

// URI is what names the key.
func (k *Key) URI() URI { return k.uri }

// Make makes an AES key of that name on the token, unless there is one.
func (k *Key) Make(ctx context.Context) (made bool, err error) {
	var b [1]byte
	err = k.ask(ctx, Request{Operation: Make}, func(r io.Reader) error {
		_, err := io.ReadFull(r, b[:])
		return err
	})
	return b[0] == 1, err
}

// Find sees that the key is there and fit, and returns words that tell which token it is on.
func (k *Key) Find(ctx context.Context) (words string, err error) {
	err = k.ask(ctx, Request{Operation: Find}, func(r io.Reader) error {
		b, err := io.ReadAll(io.LimitReader(r, maxWords))
		words = string(b)
		return err
	})
	return words, err
}

// Seal encrypts data under the key. AES-GCM binds it to aad too.
func (k *Key) Seal(ctx context.Context, data, aad []byte) (m Mechanism, sealed []byte, err error) {
	err = k.ask(ctx, Request{Operation: Seal, AAD: aad, Data: data}, func(r io.Reader) error {
		b, err := io.ReadAll(io.LimitReader(r, MaxResult))
		if err == nil && len(b) < 2 {
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			m, sealed = Mechanism(b[0]), b[1:]
		}
		return err
	})
	return m, sealed, err
}

// Open decrypts what Seal gave straight into dst, which says how long it is. dst is zeros where it fails.
func (k *Key) Open(ctx context.Context, dst []byte, m Mechanism, sealed, aad []byte) error {
	err := k.ask(ctx, Request{Operation: Open, Mechanism: m, AAD: aad, Data: sealed}, func(r io.Reader) error {
		if _, err := io.ReadFull(r, dst); err != nil {
			return err
		}
		var more [1]byte
		if n, err := r.Read(more[:]); n != 0 || !errors.Is(err, io.EOF) {
			return errors.New("it has another length")
		}
		return nil
	})
	if err != nil {
		clear(dst)
	}
	return err
}

// ask asks a helper and makes a refusal of how it failed.
func (k *Key) ask(ctx context.Context, r Request, take func(io.Reader) error) error {
	if k.knownWrong() {
		return k.refuseAs(BadPIN, "the PIN in "+k.uri.PINFile+" was wrong, and the file is as it was")
	}
	r.Key = k.uri
	pin, _ := os.Stat(k.uri.PINFile) // before it is read: one that is written meanwhile is another
	answer, words, err := k.run(ctx, r, take)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("token: asking %s: %w", k.uri.Name(), ctx.Err())
	case ctx.Err() != nil:
		return k.refuseAs(Away, context.Cause(ctx).Error())
	case err != nil:
		return k.refuseAs(Away, err.Error())
	case answer == Done:
		return nil
	case answer == Altered:
		return ErrAltered
	}
	if answer == BadPIN {
		k.noteWrong(pin)
	}
	return k.refuseAs(answer, words)
}

// refuseAs makes the refusal. It is Locked whatever the reason: what the key on the token holds does not open now.
func (k *Key) refuseAs(answer Answer, words string) error {
	hint := "see that the token is there and that its library runs, then try again (docs/cli.md, Keys on a token)"
	switch {
	case answer == NoPIN && k.uri.PINFile == "":
		hint = "write the PIN into a file that only the daemon's user can read, and name it in the URI: &pin-source=file:/PATH"
	case answer == BadPIN:
		hint = "write the right PIN into " + k.uri.PINFile + "; nothing asks the token before that, as wrong PINs lock it"
	case answer == NoPIN:
		hint = "put right what is said of the PIN, then try again"
	case answer == Unfit:
		hint = "name another key, or make one as docs/cli.md says under Keys on a token"
	}
	return refusal.New(refusal.Locked, hint, "%w: %s (%s)", ErrAway, words, k.uri.Name())
}

// login names the token with the PIN's file: all keys on it have the one PIN.
func (k *Key) login() string {
	u := k.uri
	u.Object, u.ID = "", nil
	return u.String()
}

// knownWrong tells that the PIN's file is what it was when the PIN was wrong.
func (k *Key) knownWrong() bool {
	wrongMu.Lock()
	defer wrongMu.Unlock()
	was := wrong[k.login()]
	if was == nil {
		return false
	}
	now, err := os.Stat(k.uri.PINFile)
	return err == nil && os.SameFile(now, was) && now.ModTime().Equal(was.ModTime()) && now.Size() == was.Size()
}

func (k *Key) noteWrong(pin os.FileInfo) {
	wrongMu.Lock()
	defer wrongMu.Unlock()
	wrong[k.login()] = pin
}
