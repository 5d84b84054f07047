package wire

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

func TestValidString(t *testing.T) {
	for s, want := range map[string]bool{
		"": true, "disk": true, "é/世": true, strings.Repeat("x", 4096): true,
		strings.Repeat("x", 4097): false, "a\x00b": false, "\xff": false, "é"[:1]: false,
	} {
		if ValidString([]byte(s)) != want {
			t.Errorf("ValidString(%.20q) is %v", s, !want)
		}
	}
}

func TestOnlyDefinedCodesLeave(t *testing.T) {
	defined := map[uint32]bool{0: true, 1: true, 5: true, 12: true, 22: true, 28: true, 108: true}
	for errno := range syscall.Errno(140) {
		if errno != 0 && !defined[Code(fmt.Errorf("device: %w", errno))] {
			t.Errorf("errno %d leaves as %d", errno, Code(errno))
		}
	}
	if Code(nil) != 0 || Code(errors.New("odd")) != 5 {
		t.Error("nil is not 0, or an error without a number is not EIO")
	}
}

func TestUndefinedCodesAreEIO(t *testing.T) {
	for code := range uint32(200) {
		errno := Errno(code)
		if defined := code == 75 || code == 95 || Code(errno) == code; errno == 0 || !defined && errno != syscall.EIO {
			t.Errorf("code %d is %v", code, errno)
		}
	}
}

// The byte layouts themselves are in nbd's raw client, written out by hand; here the two directions agree.
func TestLayouts(t *testing.T) {
	want := Request{Flags: 3, Type: CmdWrite, Cookie: 1 << 63, Offset: 1<<40 + 5, Length: 77}
	b := [RequestSize]byte(AppendRequest(nil, want))
	if got, ok := DecodeRequest(&b); !ok || got != want {
		t.Errorf("request %+v", got)
	}
	b[3]++
	if _, ok := DecodeRequest(&b); ok {
		t.Error("a wrong magic number was taken")
	}
	option := [OptionSize]byte(AppendOption(nil, OptGo, []byte("12345")))
	if got, ok := DecodeOption(&option); !ok || got != (Option{OptGo, 5}) {
		t.Errorf("option %+v", got)
	}
	answer := [OptionReplySize]byte(AppendOptionReply(nil, OptGo, RepErrTooBig, []byte("123")))
	if got, ok := DecodeOptionReply(&answer); !ok || got != (OptionReply{OptGo, RepErrTooBig, 3}) {
		t.Errorf("option reply %+v", got)
	}
	var reply [ReplySize]byte
	PutReply(&reply, Reply{Error: 28, Cookie: 9})
	if got, ok := DecodeReply(&reply); !ok || got != (Reply{28, 9}) {
		t.Errorf("reply %+v", got)
	}
}
