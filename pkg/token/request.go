package token

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Operation is what a helper does.
type Operation byte

// The operations. Each but Make wants the key to be there.
const (
	// Make makes an AES key on the token where there is none of that name, and answers with one byte: 1 where it did.
	Make Operation = 'm'
	// Find tells that the key is there and fit, with words that describe the token.
	Find Operation = 'f'
	// Seal encrypts data and answers with a byte, the mechanism, and what Open takes.
	Seal Operation = 's'
	// Open decrypts what Seal gave.
	Open Operation = 'o'
)

// Mechanism is how a key seals. It follows from the kind of the key, and for RSA from what the token can do.
type Mechanism byte

// The mechanisms. Of what RSA-OAEP needs from a hash, SHA-1 has kept all, and some tokens know no other.
const (
	AESGCM        Mechanism = 1
	RSAOAEPSHA256 Mechanism = 2
	RSAOAEPSHA1   Mechanism = 3
)

var mechanismNames = []string{AESGCM: "aes-gcm", RSAOAEPSHA256: "rsa-oaep-sha256", RSAOAEPSHA1: "rsa-oaep-sha1"}

func (m Mechanism) String() string {
	if m < AESGCM || int(m) >= len(mechanismNames) {
		return fmt.Sprintf("mechanism %d", byte(m))
	}
	return mechanismNames[m]
}

// MechanismOf is the mechanism of that name.
func MechanismOf(name string) (Mechanism, error) {
	for m := AESGCM; int(m) < len(mechanismNames); m++ {
		if m.String() == name {
			return m, nil
		}
	}
	return 0, fmt.Errorf("token: %q is no mechanism", name)
}

// Request is what a helper is asked: magic, operation, mechanism (for Open), the lengths of URI, associated data and data as 2 bytes each,
// big-endian, and then these three and nothing more.
type Request struct {
	Operation Operation
	Mechanism Mechanism
	Key       URI
	// AAD is what AES-GCM binds data to; RSA binds it to nothing.
	AAD, Data []byte
}

const (
	magic    = "P11A"
	headSize = 4 + 2 + 3*2
	maxAAD   = 1024
	// maxData is more than any sealed key: RSA of 8192 bits gives 1024 bytes.
	maxData = 2048
	// MaxRequest and MaxResult are the lengths of the longest request and of the longest result.
	MaxRequest = headSize + maxURI + maxAAD + maxData
	MaxResult  = 1 + maxData
)

var errRequest = errors.New("token: it is no request")

// head is everything before the data.
func (r Request) head() ([]byte, error) {
	uri := r.Key.String()
	if len(uri) > maxURI || len(r.AAD) > maxAAD || len(r.Data) > maxData {
		return nil, fmt.Errorf("%w: a URI of %d bytes, associated data of %d, data of %d", errRequest, len(uri), len(r.AAD), len(r.Data))
	}
	b := append([]byte(magic), byte(r.Operation), byte(r.Mechanism))
	for _, n := range []int{len(uri), len(r.AAD), len(r.Data)} {
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	}
	return append(append(b, uri...), r.AAD...), nil
}

// ParseRequest reads a request. AAD and data are lent from b.
func ParseRequest(b []byte) (r Request, err error) {
	if len(b) < headSize || string(b[:len(magic)]) != magic {
		return r, fmt.Errorf("%w: it has %d bytes, or begins otherwise", errRequest, len(b))
	}
	length := func(at int) int { return int(binary.BigEndian.Uint16(b[at:])) }
	uri, aad, data := length(6), length(8), length(10)
	if len(b) != headSize+uri+aad+data || aad > maxAAD || data > maxData {
		return r, fmt.Errorf("%w: %d bytes do not hold %d, %d and %d", errRequest, len(b), uri, aad, data)
	}
	r.Operation, r.Mechanism = Operation(b[4]), Mechanism(b[5])
	switch r.Operation {
	case Make, Find, Seal, Open:
	default:
		return Request{}, fmt.Errorf("%w: operation %q", errRequest, b[4])
	}
	text := string(b[headSize : headSize+uri])
	if r.Key, err = Parse(text); err != nil || r.Key.String() != text {
		return Request{}, fmt.Errorf("%w: %q: %w", errRequest, text, errors.Join(err, errRequest))
	}
	r.AAD, r.Data = b[headSize+uri:headSize+uri+aad], b[headSize+uri+aad:]
	return r, nil
}

// Answer is the first byte of what a helper says. After Done comes the result, after the others words that say why there is none.
type Answer byte

// The answers.
const (
	Done Answer = 0
	// Away: module, token or key are not there, or the token does not do what it was asked.
	Away Answer = 1
	// BadPIN: the token was given a PIN, and says that it is wrong.
	BadPIN Answer = 2
	// Altered: the key is there, and did not seal this.
	Altered Answer = 3
	// Unfit: the key is there and is not what it has to be.
	Unfit Answer = 4
	// NoPIN: the token wants a PIN, and was given none.
	NoPIN Answer = 5
)
