package secret

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "secret.Key(redacted)"

var errMarshal = errors.New("secret: a key is never marshalled")

// Format answers every verb of fmt, %x and %#v as well, with the same words.
func (k *Key) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// String is for those who ask without fmt.
func (k *Key) String() string { return redacted }

// LogValue keeps slog from trying to marshal.
func (k *Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText refuses; encoding/json, encoding/xml and YAML ask here.
func (k *Key) MarshalText() ([]byte, error) { return nil, errMarshal }

// MarshalBinary refuses; encoding/gob asks here.
func (k *Key) MarshalBinary() ([]byte, error) { return nil, errMarshal }
