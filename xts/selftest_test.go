package xts

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestRuleC19_SelfTestPasses also is what the broken build runs, below: there it has to fail.
func TestRuleC19_SelfTestPasses(t *testing.T) {
	if err := SelfTest(); err != nil {
		t.Fatal(err)
	}
}

func TestRuleC19_ABrokenBuildIsFound(t *testing.T) {
	if reduction != 0x87 {
		t.Skip("this is the broken build")
	}
	cmd := exec.Command("go", "test", "-tags", "selftest_broken", "-run", "^TestRuleC19_SelfTestPasses$", ".")
	cmd.Env = append(os.Environ(), "GOARCH=") // the machine's, where an emulator runs this test
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "does not give the known answer") {
		t.Errorf("a broken build passes its self-test: %v\n%s", err, out)
	}
}

func TestRuleC19_ABrokenDirectionIsFound(t *testing.T) {
	lastByte := func(f crypter) crypter { // wrong in the last byte of the run only
		return func(c *Cipher, dst, src []byte, sectorSize int, tweak uint64) {
			f(c, dst, src, sectorSize, tweak)
			dst[len(src)-1] ^= 1
		}
	}
	noCarry := func(f crypter) crypter { // loses the carry from the low half of the tweak
		return func(c *Cipher, dst, src []byte, sectorSize int, tweak uint64) {
			for ; len(src) > 0; tweak = uint64(uint32(tweak) + uint32(sectorSize/512)) {
				f(c, dst[:sectorSize], src[:sectorSize], sectorSize, tweak)
				dst, src = dst[sectorSize:], src[sectorSize:]
			}
		}
	}
	for _, a := range knownAnswers {
		if a.test(lastByte((*Cipher).Encrypt), (*Cipher).Decrypt) == nil {
			t.Errorf("%d: a broken encryption passes", a.sectorSize)
		}
		if a.test((*Cipher).Encrypt, lastByte((*Cipher).Decrypt)) == nil {
			t.Errorf("%d: a broken decryption passes", a.sectorSize)
		}
		if a.test((*Cipher).Decrypt, (*Cipher).Encrypt) == nil {
			t.Errorf("%d: swapped directions pass", a.sectorSize)
		}
		a.sha256 = strings.Replace(a.sha256, a.sha256[:1], "0", 1)
		if a.test((*Cipher).Encrypt, (*Cipher).Decrypt) == nil {
			t.Errorf("%d: a wrong answer passes", a.sectorSize)
		}
	}
	if knownAnswers[1].test(noCarry((*Cipher).Encrypt), noCarry((*Cipher).Decrypt)) == nil {
		t.Error("a tweak without carry passes")
	}
}
