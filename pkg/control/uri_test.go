package control

import "testing"

func TestURI(t *testing.T) {
	for _, c := range []struct{ project, disk, socket, uri string }{
		{"default", "db1", "/run/nbdcrypt/nbd.sock", "nbd+unix:///db1?socket=/run/nbdcrypt/nbd.sock"},
		{"", "db1", "/s", "nbd+unix:///db1?socket=/s"},
		{"shop", "db1", "/s", "nbd+unix:///shop/db1?socket=/s"},
		{"default", "a b+c&d#e?f", "/my run/+&.sock", "nbd+unix:///a%20b%2Bc%26d%23e%3Ff?socket=/my%20run/%2B%26.sock"},
	} {
		export := ExportName(c.project, c.disk)
		if got := URI(export, c.socket); got != c.uri {
			t.Errorf("%q, want %q", got, c.uri)
		}
		if e, s, err := ParseURI(c.uri); err != nil || e != export || s != c.socket {
			t.Errorf("%s: %q %q %v", c.uri, e, s, err)
		}
	}
	for _, bad := range []string{"", "nbd://host/x", "nbd+unix:///x", "nbd+unix:///%zz?socket=/s", "nbd+unix:///x?socket=%"} {
		if _, _, err := ParseURI(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// FuzzURI: what URI makes, ParseURI reads back, whatever the names hold.
func FuzzURI(f *testing.F) {
	seeds := [][2]string{{"db1", "/run/nbd.sock"}, {"p/d", "/a b"}, {"%2F?socket=", "?socket=%"}, {"", ""}}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, seed := range seeds {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, export, socket string) {
		e, s, err := ParseURI(URI(export, socket))
		if err != nil || e != export || s != socket {
			t.Fatalf("%q %q came back as %q %q: %v", export, socket, e, s, err)
		}
		_, _, _ = ParseURI(export)
	})
}
