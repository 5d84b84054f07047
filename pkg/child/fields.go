package child

import (
	"encoding/binary"
	"fmt"
)

// Requests and answers of more than one part are fields, each after its length in two bytes.

// putField adds a field to b.
func putField(b, field []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(field))), field...)
}

// takeFields takes apart what consists of n fields and nothing more. They are lent from b.
func takeFields(b []byte, n int) (fields [][]byte, err error) {
	for range n {
		if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
			return nil, fmt.Errorf("%w: a field is cut short", errRequest)
		}
		end := 2 + int(binary.BigEndian.Uint16(b))
		fields, b = append(fields, b[2:end]), b[end:]
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("%w: there are %d bytes after it", errRequest, len(b))
	}
	return fields, nil
}
