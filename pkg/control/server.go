package control

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"nbdcrypt/pkg/refusal"
)

const (
	// maxRequest bounds the body of a call: no request type needs a tenth of it.
	maxRequest = 64 << 10
	// maxWait bounds how long a question about a job stays open.
	maxWait = 30 * time.Second
	// bodyTime is what a caller may take to send its body, and readTime what it may take to read its answer: neither a
	// connection nor the end of the daemon waits for one who does not.
	bodyTime = 5 * time.Second
	readTime = 10 * time.Second
)

// WriteJSON answers with v; a nil v is an answer without a body.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	if v == nil {
		w.WriteHeader(status)
		return
	}
	body, err := json.Marshal(v)
	if err != nil {
		WriteError(w, fmt.Errorf("control: writing the answer: %w", err))
		return
	}
	write(w, status, body)
}

// WriteError answers with a refusal.
func WriteError(w http.ResponseWriter, err error) {
	body, _ := json.Marshal(ErrorBody{Error: ErrorOf(err)}) // strings and a number: it can't fail
	write(w, StatusOf(refusal.CodeOf(err)), body)
}

func write(w http.ResponseWriter, status int, body []byte) {
	deadline(w, (*http.ResponseController).SetWriteDeadline, readTime)
	body = append(body, '\n')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	// A caller who has gone is no error of ours.
	_, _ = w.Write(body)
}

// StatusOf is the HTTP status for a refusal. It is for logs and proxies: clients read the code in the body.
func StatusOf(code refusal.Code) int {
	switch code {
	case refusal.Usage:
		return http.StatusBadRequest
	case refusal.NotFound:
		return http.StatusNotFound
	case refusal.KeyForbids:
		return http.StatusLocked
	case refusal.Denied:
		return http.StatusForbidden
	case refusal.Busy:
		return http.StatusConflict
	case refusal.Confirm:
		return http.StatusPreconditionRequired
	case refusal.Locked, refusal.Unreachable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// deadline bounds the reads or writes of a call's connection; one that is no connection has no use for it.
func deadline(w http.ResponseWriter, set func(*http.ResponseController, time.Time) error, limit time.Duration) {
	_ = set(http.NewResponseController(w), time.Now().Add(limit))
}

// Digest stands for a call's body.
type Digest [sha256.Size]byte

// TakeBody reads the whole body before anything is done about a call, whatever its caller may do, and leaves it in r for
// ReadJSON. A connection whose body does not end, or is too long, is of no use any more.
func TakeBody(w http.ResponseWriter, r *http.Request) (Digest, error) {
	deadline(w, (*http.ResponseController).SetReadDeadline, bodyTime)
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest+1))
	if err == nil && len(body) > maxRequest {
		err = fmt.Errorf("longer than %d bytes", maxRequest)
	}
	if err != nil {
		w.Header().Set("Connection", "close")
		return Digest{}, refusal.New(refusal.Usage, "send all of it at once, with its length", "the request's body is wrong: %w", err)
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	r.Body = io.NopCloser(bytes.NewReader(body))
	return sha256.Sum256(body), nil
}

// ReadJSON reads the one JSON object that a call's body must be. A field that v does not have is refused: an option
// that nobody reads must not look as if it had been taken.
func ReadJSON(r *http.Request, v any) error {
	body := &io.LimitedReader{R: r.Body, N: maxRequest + 1}
	decoder := json.NewDecoder(body)
	decoder.DisallowUnknownFields()
	err := decoder.Decode(v)
	if err == nil {
		if _, err = decoder.Token(); err == nil {
			err = errors.New("more than one JSON value")
		} else if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if body.N <= 0 {
		err = fmt.Errorf("longer than %d bytes", maxRequest)
	}
	if err != nil {
		return refusal.New(refusal.Usage, "send one JSON object with the fields of this call only", "the request's body is wrong: %w", err)
	}
	return nil
}

// PeekJSON is ReadJSON that leaves the body to be read again, once TakeBody has taken it.
func PeekJSON(r *http.Request, v any) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return fmt.Errorf("control: reading the body again: %w", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	defer func() { r.Body = io.NopCloser(bytes.NewReader(body)) }()
	return ReadJSON(r, v)
}

// Wait is what the caller of RouteJobShow has seen, and how long it wants to wait for what comes after.
func Wait(r *http.Request) (after uint64, wait time.Duration, err error) {
	query := r.URL.Query()
	if text := query.Get(QueryWait); text != "" {
		if wait, err = time.ParseDuration(text); err != nil || wait < 0 {
			return 0, 0, refusal.New(refusal.Usage, "write it as 10s or 500ms", "%s=%s is not a duration", QueryWait, text)
		}
	}
	if text := query.Get(QueryAfter); text != "" {
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			return 0, 0, refusal.New(refusal.Usage, "send the revision that was seen last", "%s=%s is not a revision", QueryAfter, text)
		}
	}
	return after, min(wait, maxWait), nil
}
