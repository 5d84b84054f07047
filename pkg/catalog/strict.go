package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// DecodeStrict reads the one JSON value that a record is. A field that v does not have is refused, since what nobody reads must not look as if it held, and so is
// whatever follows.
func DecodeStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the record")
	}
	return nil
}
