package child

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"nbdcrypt/pkg/secret"
)

// operation is one thing that a child can do.
type operation struct {
	// word is its name on the child's command line.
	word string
	// request and answer are how many bytes either has at most; a request stays below what a pipe holds (64 KiB).
	request, answer int
	// timeout is far more than it takes on a slow machine.
	timeout time.Duration
	// turn lets one child of it run at a time, where it is not nil.
	turn chan struct{}
	// do works in the child: on a request in key memory, it lays the answer into key memory and tells its length.
	do func(request, answer []byte) (int, error)
}

// operations are all that a child can be asked for.
func operations() []*operation {
	return []*operation{argon2Operation, rsaMake, rsaUnwrap, ed25519Sign, sealOperation, unsealOperation}
}

func operationOf(word string) (*operation, error) {
	all := operations()
	i := slices.IndexFunc(all, func(op *operation) bool { return op.word == word })
	if i < 0 {
		return nil, fmt.Errorf("%w: there is no operation %.20q", errRequest, word)
	}
	return all[i], nil
}

func (op *operation) enter(ctx context.Context) error {
	if op.turn == nil {
		return nil
	}
	select {
	case op.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("child: waiting for another one to end: %w", ctx.Err())
	}
}

func (op *operation) leave() {
	if op.turn != nil {
		<-op.turn
	}
}

func total(parts [][]byte) (n int) {
	for _, p := range parts {
		n += len(p)
	}
	return n
}

var errRequest = errors.New("child: it is no request")

// An answer is a byte: 0, then the length of the result in 4 bytes, big-endian, and the result; or the class of a failure, and
// words that say why there is none.
const (
	answerResult = 0
	classFailed  = 1 // what has no class of its own
	answerHead   = 5
	maxFailure   = 500
)

// failure is why an operation gave nothing, of a class that whoever asked can tell.
type failure struct {
	class byte
	error
}

func (f *failure) Unwrap() error { return f.error }

// classOf is the class of an error, 0 where no operation gave it.
func classOf(err error) byte {
	var f *failure
	if errors.As(err, &f) {
		return f.class
	}
	return 0
}

// readAnswer reads a result straight into where it stays.
func readAnswer(from io.Reader, most int, why secret.Purpose) (*secret.Key, error) {
	var head [answerHead]byte
	if _, err := io.ReadFull(from, head[:1]); err != nil {
		return nil, fmt.Errorf("child: its answer: %w", err)
	}
	if head[0] != answerResult {
		words, err := io.ReadAll(io.LimitReader(from, maxFailure))
		return nil, &failure{head[0], errors.Join(fmt.Errorf("%.*q", maxFailure, words), err)}
	}
	if _, err := io.ReadFull(from, head[1:]); err != nil {
		return nil, fmt.Errorf("child: its answer: %w", err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n == 0 || n > uint32(most) {
		return nil, fmt.Errorf("child: its answer has %d bytes", n)
	}
	key, err := secret.Work(int(n), why)
	if err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	if _, err := io.ReadFull(from, key.Bytes()); err != nil {
		key.Destroy()
		return nil, fmt.Errorf("child: its answer: %w", err)
	}
	return key, nil
}
