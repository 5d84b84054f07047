package control

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"nbdcrypt/pkg/refusal"
)

func TestUnreachableWords(t *testing.T) {
	c := New("/run/x/control.sock")
	wantCode(t, c.unreachable(fmt.Errorf("connect: %w", syscall.EACCES)), refusal.Unreachable, "may not open", "/run/x/control.sock", "--run")
	wantCode(t, c.unreachable(syscall.ECONNREFUSED), refusal.Unreachable, "nothing listens", "nbdcrypt serve --run /run/x")
	wantCode(t, c.unreachable(syscall.ENOENT), refusal.Unreachable, "no socket", "$NBDCRYPT_RUN")
}

func TestErrorOf(t *testing.T) {
	got := ErrorOf(fmt.Errorf("disk d: %w", refusal.New(refusal.Busy, "detach it", "in use")))
	if *got != (Error{Code: 6, Message: "disk d: in use", Hint: "detach it"}) {
		t.Errorf("%+v", got)
	}
	if got := ErrorOf(errors.New("boom")); got.Code != 1 || got.Message != "boom" {
		t.Errorf("%+v", got)
	}
}
