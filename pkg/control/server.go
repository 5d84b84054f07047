package control

import (
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
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A caller who has gone is no error of ours.
	_, _ = w.Write(append(body, '\n'))
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
