package control

import (
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestDiskLineAsJSON(t *testing.T) {
	for _, d := range []DiskLine{
		{},
		{ID: "1", Name: "vault", Size: 1 << 40, Encrypted: true, Key: &DiskKey{"2", "evs/default", "Enabled"}, Status: "in-use", Created: time.Unix(1e9, 7).UTC()},
		{Name: "a\"b\\c<d>&\u2028é\x00\xff", Key: &DiskKey{}, Created: time.Unix(1e9, 0).In(time.FixedZone("", 3600))},
	} {
		want, err := json.Marshal(d)
		if got := d.AppendJSON(nil); err != nil || string(got) != string(want) {
			t.Errorf("%s, want %s, %v", got, want, err)
		}
	}
}

// TestStream: what goes in comes out, however much; an error that comes early enough is the answer, and later the answer breaks off.
func TestStream(t *testing.T) {
	answer := func(n int, fail error) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		func() {
			defer func() { _ = recover() }() // as the HTTP server does
			Stream(func(next func(any) error) error {
				for i := range n {
					if err := next(DiskLine{Name: "disk", Size: int64(i)}); err != nil {
						return err
					}
				}
				return fail
			}).ServeHTTP(w, nil)
		}()
		return w
	}
	count := func(body string) (n int64, err error) {
		err = eachOf(strings.NewReader(body), func(d DiskLine) error {
			if d.Name != "disk" || d.Size != n {
				t.Errorf("%d is %+v", n, d)
			}
			n++
			return nil
		})
		return n, err
	}
	for _, want := range []int64{0, 1, 2, 5000} {
		if n, err := count(answer(int(want), nil).Body.String()); err != nil || n != want {
			t.Errorf("%d elements of %d, %v", n, want, err)
		}
	}
	if w := answer(1, errors.New("early")); w.Code != 500 || !strings.Contains(w.Body.String(), "early") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if n, err := count(answer(5000, errors.New("late")).Body.String()); n == 0 || !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		t.Errorf("a broken answer: %d elements, %v", n, err)
	}
	if _, err := count(`{"a":1}`); err == nil {
		t.Error("an object is taken for an array")
	}
}
