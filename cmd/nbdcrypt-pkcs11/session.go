//go:build pkcs11

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/miekg/pkcs11"
	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/token"
)

// session is a session with the token that a URI names, logged in where it wants that.
type session struct {
	*pkcs11.Ctx
	handle pkcs11.SessionHandle
	token  pkcs11.TokenInfo
}

// connect loads the module, finds the token and logs in.
func connect(uri token.URI, write bool) (*session, error) {
	path, err := token.Trusted(uri.Module)
	if err != nil {
		return nil, fail(token.Away, "the library of the token is not loaded: %v", err)
	}
	module := pkcs11.New(path)
	if module == nil {
		return nil, fail(token.Away, "%s can't be loaded as a PKCS#11 library", path)
	}
	if err := module.Initialize(); err != nil {
		return nil, fail(token.Away, "the library %s does not start: %v", path, err)
	}
	s := &session{Ctx: module}
	if err = s.begin(uri, write); err == nil {
		err = s.login(uri)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *session) close() {
	_ = s.Finalize() // which ends sessions and logins too
	s.Destroy()
}

// begin finds the one token that fits, and opens a session with it.
func (s *session) begin(uri token.URI, write bool) error {
	slots, err := s.GetSlotList(true)
	if err != nil {
		return fail(token.Away, "the tokens can't be listed: %v", err)
	}
	var slot uint
	found := 0
	for _, id := range slots {
		info, err := s.GetTokenInfo(id)
		if err == nil && info.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0 && fits(uri, info) {
			slot, s.token = id, info
			found++
		}
	}
	switch {
	case found == 0:
		return fail(token.Away, "there is no such token (of %d that the library has)", len(slots))
	case found > 1:
		return fail(token.Unfit, "%d tokens fit: name the serial number too", found)
	}
	flags := uint(pkcs11.CKF_SERIAL_SESSION)
	if write {
		flags |= pkcs11.CKF_RW_SESSION
	}
	if s.handle, err = s.OpenSession(slot, flags); err != nil {
		return fail(token.Away, "the token takes no session: %v", err)
	}
	return nil
}

func fits(uri token.URI, info pkcs11.TokenInfo) bool {
	for _, a := range []struct{ want, have string }{{uri.Token, info.Label}, {uri.Serial, info.SerialNumber}, {uri.Model, info.Model},
		{uri.Manufacturer, info.ManufacturerID}} {
		if a.want != "" && a.want != strings.TrimRight(a.have, " \x00") {
			return false
		}
	}
	return true
}

// login gives the PIN where the token wants one. The last try before the token locks is left to a person.
func (s *session) login(uri token.URI) error {
	switch {
	case s.token.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0:
		return nil
	case uri.PINFile == "":
		return fail(token.NoPIN, "the token wants a PIN")
	case s.token.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return fail(token.NoPIN, "the token is locked after too many wrong PINs")
	case s.token.Flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return fail(token.NoPIN, "one more wrong PIN locks the token: log in with another program, such as pkcs11-tool --login, first")
	}
	pin, err := readPIN(uri.PINFile)
	if err != nil {
		return fail(token.NoPIN, "the PIN can't be read: %v", err)
	}
	var code pkcs11.Error
	err = s.Login(s.handle, pkcs11.CKU_USER, string(pin))
	clear(pin)
	switch {
	case err == nil, errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)):
		return nil
	case errors.As(err, &code) && (code == pkcs11.CKR_PIN_INCORRECT || code == pkcs11.CKR_PIN_INVALID || code == pkcs11.CKR_PIN_LEN_RANGE ||
		code == pkcs11.CKR_PIN_LOCKED || code == pkcs11.CKR_PIN_EXPIRED):
		return fail(token.BadPIN, "the PIN in %s is wrong: %v", uri.PINFile, err)
	}
	return fail(token.Away, "logging in failed: %v", err)
}

// maxPIN is far more than tokens take.
const maxPIN = 256

// readPIN reads a PIN that nobody else can read; a line feed at its end is not part of it.
func readPIN(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	switch me := uint32(os.Geteuid()); {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("%s is not a regular file", path)
	case st.Uid != me && st.Uid != 0:
		return nil, fmt.Errorf("%s belongs to user %d; it has to belong to user %d or root", path, st.Uid, me)
	case st.Mode&0o077 != 0:
		return nil, fmt.Errorf("%s has mode %04o: others than its owner can reach it; run `chmod 600 %s`", path, st.Mode&0o7777, path)
	}
	pin := make([]byte, maxPIN+1)
	n, err := io.ReadFull(f, pin)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if n > 0 && pin[n-1] == '\n' {
		n--
	}
	if n == 0 || n == len(pin) {
		return nil, fmt.Errorf("%s holds no PIN of 1 to %d bytes", path, maxPIN)
	}
	return pin[:n], nil
}
