package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nbdcrypt/pkg/refusal"
)

// TestBackground: the program is started again with the same words; what it tells is what this one prints, or refuses.
func TestBackground(t *testing.T) {
	f := withDisk(t)
	attached := `{"attached":{"disk":"d","export":"d","uri":"nbd+unix:///d?socket=/s","device":"/dev/nbd4","warnings":["look"]}}`
	for _, c := range []struct {
		script string
		code   refusal.Code
		out    string
		err    string
	}{
		{`[ "$*" = "attach d --device auto" ] && [ "$NBDCRYPT_KEEPER" = 3 ] && echo '` + attached + `' >&3; exec 3>&-; exit`, refusal.OK, "device: /dev/nbd4\n", "warning: look\n"},
		{`echo '{"error":{"code":4,"message":"key k is Disabled","hint":"enable it"}}' >&3`, refusal.KeyForbids, "", "nbdcrypt: key k is Disabled\n  → enable it\n"},
		{`echo 'mount: it said this' >&2; exit 3`, refusal.Failed, "", "mount: it said this\nnbdcrypt: the device's keeper ended"},
		{`echo '{"attached' >&3; kill -9 $$`, refusal.Failed, "", "signal: killed"},
	} {
		m := newMachine(0)
		m.program = filepath.Join(t.TempDir(), "keeper")
		if err := os.WriteFile(m.program, []byte("#!/bin/sh\n"+c.script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		got := m.on(t, f, "", "attach", "d", "--device", "auto")
		if got.code != int(c.code) || !strings.Contains(got.out, c.out) || !strings.Contains(got.err, c.err) || len(m.steps) != 0 {
			t.Errorf("%s: %+v", c.script, got)
		}
	}
}

// TestVoiceNeverWaits: who listens and takes nothing does not hold up who speaks.
func TestVoiceNeverWaits(t *testing.T) {
	deaf := make(chan struct{})
	heard := make(chan string, 1)
	v := newVoice(func(text string) { heard <- text; <-deaf })
	for range 10 * voiceRoom {
		v.say("%d words", 2)
	}
	if text := <-heard; text != "2 words" {
		t.Errorf("%q", text)
	}
	close(deaf)
	go func() {
		for range heard {
		}
	}()
	began := time.Now()
	v.close()
	if time.Since(began) > lastWords {
		t.Error("the last words were not waited for")
	}
}
