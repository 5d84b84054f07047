package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// Long lists are streams: one element is read, shown and sent after the other, by three that work at once. On the wire they are arrays like
// all others.

// QueryBrief asks for a list of DiskLine in place of one of Disk.
const QueryBrief = "brief"

// DiskLine is as much of a Disk as a line of a table has: half the work for everybody.
type DiskLine struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Size      int64     `json:"size"`
	Encrypted bool      `json:"encrypted"`
	Key       *DiskKey  `json:"key"`
	Status    string    `json:"status"`
	Created   time.Time `json:"created"`
}

// AppendJSON appends what json.Marshal makes of it, in a fraction of the time.
func (d DiskLine) AppendJSON(b []byte) []byte {
	b = appendText(append(b, `{"id":`...), d.ID)
	b = appendText(append(b, `,"name":`...), d.Name)
	b = strconv.AppendInt(append(b, `,"size":`...), d.Size, 10)
	b = strconv.AppendBool(append(b, `,"encrypted":`...), d.Encrypted)
	b = append(b, `,"key":`...)
	if d.Key == nil {
		b = append(b, "null"...)
	} else {
		b = appendText(append(b, `{"id":`...), d.Key.ID)
		b = appendText(append(b, `,"alias":`...), d.Key.Alias)
		b = append(appendText(append(b, `,"state":`...), d.Key.State), '}')
	}
	b = appendText(append(b, `,"status":`...), d.Status)
	b = d.Created.AppendFormat(append(b, `,"created":"`...), time.RFC3339Nano)
	return append(b, `"}`...)
}

func appendText(b []byte, s string) []byte {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a text: it can't fail
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// streamChunk is how much of a stream is sent at a time.
const streamChunk = 64 << 10

// Stream answers with the array of what list hands to next, in order. An error before the first chunk is sent is the answer; after
// it the connection breaks, so that nobody takes a part for the whole.
func Stream(list func(next func(any) error) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := &streamWriter{w: w}
		s.encoder = json.NewEncoder(&s.text)
		err := list(s.next)
		switch {
		case err != nil && !s.begun:
			WriteError(w, err)
		case err != nil:
			panic(http.ErrAbortHandler)
		default:
			s.end()
		}
	})
}

type streamWriter struct {
	w       http.ResponseWriter
	text    bytes.Buffer
	encoder *json.Encoder
	count   int
	begun   bool
}

func (s *streamWriter) next(v any) error {
	separator := byte(',')
	if s.count == 0 {
		separator = '['
	}
	s.count++
	s.text.WriteByte(separator)
	if quick, is := v.(interface{ AppendJSON([]byte) []byte }); is {
		s.text.Write(quick.AppendJSON(s.text.AvailableBuffer()))
	} else if err := s.encoder.Encode(v); err != nil {
		return fmt.Errorf("control: writing the answer: %w", err)
	}
	if s.text.Len() < streamChunk {
		return nil
	}
	return s.send()
}

func (s *streamWriter) send() error {
	s.begun = true
	s.w.Header().Set("Content-Type", "application/json")
	deadline(s.w, (*http.ResponseController).SetWriteDeadline, readTime)
	_, err := s.w.Write(s.text.Bytes())
	s.text.Reset()
	return err
}

func (s *streamWriter) end() {
	if s.count == 0 {
		s.text.WriteByte('[')
	}
	s.text.WriteString("]\n")
	_ = s.send() // a caller who has gone is no error of ours
}

// EachDisk calls fn with every disk of the project as it arrives, as a Disk, a DiskLine or json.RawMessage. What came before an error is
// not all that there is.
func EachDisk[T any](ctx context.Context, c *Client, fn func(T) error) error {
	_, brief := any(*new(T)).(DiskLine)
	answer, err := c.ask(ctx, uuid.NewString(), call{route: RouteDiskList, query: flags(QueryBrief, brief)})
	if err != nil {
		return c.failed(ctx, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		body, err := whole(answer)
		if err != nil {
			return c.failed(ctx, err)
		}
		return answered(answer.StatusCode, body)
	}
	if err := eachOf(answer.Body, fn); err != nil {
		return c.failed(ctx, err)
	}
	return nil
}

// eachOf decodes an array element by element. A part of one is io.ErrUnexpectedEOF.
func eachOf[T any](r io.Reader, fn func(T) error) error {
	decoder := json.NewDecoder(r)
	if open, err := decoder.Token(); err != nil || open != json.Delim('[') {
		return errors.Join(errors.New("control: reading the daemon's answer: it is no array"), err)
	}
	for decoder.More() {
		var v T
		if err := decoder.Decode(&v); err != nil {
			return fmt.Errorf("control: reading the daemon's answer: %w", err)
		}
		if err := fn(v); err != nil {
			return err
		}
	}
	if _, err := decoder.Token(); err != nil {
		return fmt.Errorf("control: reading the daemon's answer: %w", err)
	}
	return nil
}
