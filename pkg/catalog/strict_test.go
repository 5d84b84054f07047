package catalog_test

import (
	"testing"

	"nbdcrypt/pkg/catalog"
)

// A record is one value, of known fields, to its end: also what could close something is too much.
func TestDecodeStrict(t *testing.T) {
	for text, good := range map[string]bool{
		`{"a":1}`: true, "{\"a\":1} \n": true, `{}`: true,
		`{"a":1}}`: false, `{"a":1}]`: false, `{"a":1}{}`: false, `{"a":1},`: false, `{"a":1} x`: false, `{"b":1}`: false, `{"a":"1"}`: false, `{"a":1`: false, ``: false,
	} {
		var v struct{ A int }
		if err := catalog.DecodeStrict([]byte(text), &v); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
}
