package seed

import (
	"sort"
	"strings"

	"nbdcrypt/pkg/catalog"
)

// sorted is a catalog.Reader of all records, as far as WriteStream needs one.
type sorted struct {
	catalog.Reader
	values map[string][]byte
	names  []string
}

// Scan implements catalog.Reader.
func (s *sorted) Scan(prefix, after string, limit int) (pairs []catalog.Pair, _ error) {
	from := sort.Search(len(s.names), func(i int) bool { return s.names[i] > after && s.names[i] >= prefix })
	for _, name := range s.names[from:] {
		if len(pairs) == limit || !strings.HasPrefix(name, prefix) {
			break
		}
		pairs = append(pairs, catalog.Pair{Key: name, Value: s.values[name]})
	}
	return pairs, nil
}
