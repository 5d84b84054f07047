// Command nbdcrypt-pkcs11 does one operation with a key on a PKCS#11 token and ends. The daemon starts it: a request on stdin, an
// answer on stdout (nbdcrypt/pkg/token). It is a program of its own because a token's module is a C library: with the tag pkcs11 it
// is built with cgo and loads such a module, without the tag it says how to build it.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/secret"
	"nbdcrypt/pkg/shield"
	"nbdcrypt/pkg/token"
)

// failure is an answer without a result.
type failure struct {
	answer token.Answer
	words  string
}

func (f failure) Error() string { return f.words }

func fail(answer token.Answer, format string, args ...any) error {
	return failure{answer, fmt.Sprintf(format, args...)}
}

var work = secret.Purpose{Kind: "child", For: "one operation of a token"}

func main() {
	if len(os.Args) != 1 {
		fmt.Fprintln(os.Stderr, "nbdcrypt-pkcs11 is started by `nbdcrypt serve` where a key is on a PKCS#11 token; it takes no arguments")
		os.Exit(2)
	}
	if err := serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "nbdcrypt-pkcs11:", err)
		os.Exit(1)
	}
}

// serve answers one request.
func serve(in io.Reader, out io.Writer) error {
	var failed failure
	result := []byte{}
	err := hide()
	if err == nil {
		var mem *secret.Key
		if mem, err = secret.Work(token.MaxRequest+1+token.MaxResult, work); err == nil {
			defer mem.Destroy()
			result, err = answer(in, mem.Bytes())
		}
	}
	switch {
	case err == nil:
	case errors.As(err, &failed):
		result = append([]byte{byte(failed.answer)}, failed.words...)
	default:
		result = append([]byte{byte(token.Away)}, err.Error()...)
	}
	_, err = out.Write(result)
	return err
}

// answer reads the request into mem and does what it asks. The answer lies in mem as well.
func answer(in io.Reader, mem []byte) ([]byte, error) {
	request, result := mem[:token.MaxRequest+1], mem[token.MaxRequest+1:]
	n, err := io.ReadFull(in, request)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	r, err := token.ParseRequest(request[:n])
	if err != nil {
		return nil, err
	}
	result[0] = byte(token.Done)
	n, err = operate(r, result[1:])
	return result[:1+n], err
}

// hide makes sure that nobody reads this process's memory. Nothing is secret in it before.
func hide() error {
	if err := shield.Harden(); err != nil {
		return err
	}
	none := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &none) // not needed with CAP_IPC_LOCK, and allowed with CAP_SYS_RESOURCE
	if secret.Stats().Limit == 0 {
		_ = unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT) // with a limit, allocating would fail later on
	}
	return nil
}
