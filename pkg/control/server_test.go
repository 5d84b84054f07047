package control

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"nbdcrypt/pkg/refusal"
)

func TestWriteError(t *testing.T) {
	want := map[refusal.Code]int{
		refusal.Failed: 500, refusal.Usage: 400, refusal.NotFound: 404, refusal.KeyForbids: 423, refusal.Denied: 403,
		refusal.Busy: 409, refusal.Unreachable: 503, refusal.Damaged: 500, refusal.Confirm: 428, refusal.Locked: 503,
	}
	for code, status := range want {
		w := httptest.NewRecorder()
		WriteError(w, refusal.New(code, "hint", "message <%d>", code))
		if w.Code != status {
			t.Errorf("code %d: status %d, want %d", code, w.Code, status)
		}
		var body ErrorBody
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body.Error.Code != int(code) {
			t.Errorf("code %d: body %s: %v", code, w.Body, err)
		}
	}
}

func TestWriteJSON(t *testing.T) {
	w := httptest.NewRecorder()
	WriteJSON(w, http.StatusCreated, Disk{Name: "d"})
	if w.Code != http.StatusCreated || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	w = httptest.NewRecorder()
	WriteJSON(w, http.StatusNoContent, nil)
	if w.Code != http.StatusNoContent || w.Body.Len() != 0 {
		t.Errorf("%d %q", w.Code, w.Body)
	}
	w = httptest.NewRecorder()
	WriteJSON(w, http.StatusOK, map[string]any{"x": func() {}})
	if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), `"code":1`) {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}

// TestListsAreNeverNull looks at every type of the API that holds a list.
func TestListsAreNeverNull(t *testing.T) {
	for _, v := range []any{Status{}, Disk{}, DiskLayer{}, Attachment{}, Escrow{}, CheckReport{}, RootState{}, List[Disk](nil)} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range []string{"warnings", "layers", "attachments", "segments", "allow", "findings", "slots"} {
			if strings.Contains(string(text), `"`+field+`":null`) {
				t.Errorf("%T: %s", v, text)
			}
		}
		if string(text) == "null" {
			t.Errorf("%T is null", v)
		}
	}
}

func request(body string) *http.Request {
	return httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
}

func TestReadJSON(t *testing.T) {
	var create DiskCreate
	if err := ReadJSON(request(" {\"name\":\"d\",\"size\":1024}\n"), &create); err != nil || create.Size != 1024 {
		t.Fatalf("%+v, %v", create, err)
	}
	for name, body := range map[string]string{
		"empty": "", "cut": `{"name":"d"`, "unknown field": `{"name":"d","mirrored":true}`, "trailing value": `{} {}`,
		"trailing bytes": `{}x`, "wrong type": `{"size":"1G"}`, "fraction": `{"size":1.5}`, "past int64": `{"size":9223372036854775808}`,
		"array": `[]`, "too long": `{"name":"` + strings.Repeat("x", maxRequest) + `"}`, "long tail": `{}` + strings.Repeat(" ", maxRequest),
	} {
		var v DiskCreate
		if err := ReadJSON(request(body), &v); refusal.CodeOf(err) != refusal.Usage {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzReadJSON: whatever the bytes, a body is refused as Usage or read as what its own JSON says.
func FuzzReadJSON(f *testing.F) {
	seeds := []string{
		`{"alias":"a/b"}`, `{"name":"d","size":10737418240,"encrypted":false,"key":"k","sector_size":4096}`,
		`{"size":1}`, `{"read_only":true,"allow":["u","v"]}`, `{"disk":"d"}`, `{}`, `null`, `{"size":1e400}`, `{}{}`,
	}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, seed := range seeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		for _, v := range []any{new(KeyCreate), new(DiskCreate), new(DiskExtend), new(Attach), new(Check)} {
			err := ReadJSON(request(body), v)
			if err != nil {
				if refusal.CodeOf(err) != refusal.Usage {
					t.Fatalf("%T: %v", v, err)
				}
				continue
			}
			text, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			again := reflect.New(reflect.TypeOf(v).Elem()).Interface()
			if err := ReadJSON(request(string(text)), again); err != nil {
				t.Fatalf("%T: %s, from %q: %v", v, text, body, err)
			}
			if next, _ := json.Marshal(again); string(next) != string(text) {
				t.Fatalf("%T: %s became %s", v, text, next)
			}
		}
	})
}

func TestWait(t *testing.T) {
	for query, want := range map[string]time.Duration{"after=3": 0, "after=3&wait=2s": 2 * time.Second, "wait=1h&after=3": maxWait} {
		after, got, err := Wait(httptest.NewRequest(http.MethodGet, "/?"+query, nil))
		if err != nil || got != want || after != 3 {
			t.Errorf("%q: %v, %v, %v", query, after, got, err)
		}
	}
	for _, query := range []string{"?wait=-1s", "?wait=5", "?wait=x", "?after=-1", "?after=x"} {
		_, _, err := Wait(httptest.NewRequest(http.MethodGet, "/"+query, nil))
		wantCode(t, err, refusal.Usage)
	}
}

// TestReadJSONReader: a connection that breaks while the body is read is the caller's fault, not a panic.
func TestReadJSONReader(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/", failing{})
	wantCode(t, ReadJSON(r, new(Check)), refusal.Usage, "broke")
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("broke") }
