package token

import (
	"bytes"
	"testing"
)

func request(t testing.TB, op Operation) Request {
	t.Helper()
	u, err := Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	return Request{Operation: op, Mechanism: AESGCM, Key: u, AAD: []byte("bound"), Data: []byte("data")}
}

func TestMechanismsHaveNames(t *testing.T) {
	for m := AESGCM; m <= RSAOAEPSHA1; m++ {
		if got, err := MechanismOf(m.String()); err != nil || got != m {
			t.Errorf("%s is %v, %v", m, got, err)
		}
	}
	for _, name := range []string{"", "mechanism 0", "aes"} {
		if m, err := MechanismOf(name); err == nil {
			t.Errorf("%q is %v", name, m)
		}
	}
}

func TestRequestsThatAreTooLong(t *testing.T) {
	for what, change := range map[string]func(*Request){
		"AAD":  func(r *Request) { r.AAD = make([]byte, maxAAD+1) },
		"data": func(r *Request) { r.Data = make([]byte, maxData+1) },
	} {
		r := request(t, Seal)
		change(&r)
		if _, err := r.head(); err == nil {
			t.Errorf("more %s than there is room for was taken", what)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, op := range []Operation{Make, Find, Seal, Open, 'x'} {
		r := request(f, op)
		head, err := r.head()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(append(head, r.Data...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRequest(b)
		if err != nil {
			return
		}
		head, err := r.head()
		if err != nil || !bytes.Equal(append(head, r.Data...), b) {
			t.Errorf("%x is taken as %+v, %v", b, r, err)
		}
	})
}
