// Package refusal holds the one error type that reaches a person: what was refused, why, what to do next, and
// the exit code that scripts rely on (docs/cli.md). Every room but xts, nbd, pkg/secret and pkg/aes256 may use it.
package refusal

import (
	"errors"
	"fmt"
)

// Code is an exit code of the CLI contract. A code is never reused for another meaning.
type Code int

// The exit codes of the CLI contract.
const (
	OK          Code = 0
	Failed      Code = 1
	Usage       Code = 2
	NotFound    Code = 3
	KeyForbids  Code = 4
	Denied      Code = 5
	Busy        Code = 6
	Unreachable Code = 7
	Damaged     Code = 8
	Confirm     Code = 9
	Locked      Code = 10
)

// Error is a refusal: Message says what and why, Hint says what to do next.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
	cause   error
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.cause }

// New makes a refusal. Hint may be empty only where nothing can be done.
func New(code Code, hint, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Hint: hint, cause: errors.Unwrap(err)}
}

// From returns err as a refusal: the one inside it, or a plain failure that carries its text.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if !errors.As(err, &e) {
		return &Error{Code: Failed, Message: err.Error(), cause: err}
	}
	if err == error(e) {
		return e
	}
	// The words that were wrapped round a refusal say where it happened; keep them.
	return &Error{Code: e.Code, Message: err.Error(), Hint: e.Hint, cause: err}
}

// CodeOf is the exit code that err stands for.
func CodeOf(err error) Code {
	if err == nil {
		return OK
	}
	return From(err).Code
}
