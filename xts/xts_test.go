package xts

import (
	"bytes"
	"testing"

	"nbdcrypt/pkg/aes256"
)

func TestNewRefuses(t *testing.T) {
	mem, key := aes256.InsecureMemory(Size+32), random(1, KeySize)
	for name, c := range map[string]struct{ mem, key []byte }{
		"short memory":     {mem[:Size-1], key},
		"no memory":        {nil, key},
		"unaligned memory": {mem[32:], key},
		"short key":        {mem, key[:63]},
		"AES-128 key":      {mem, key[:32]},
		"long key":         {mem, append(bytes.Clone(key), 0)},
		"no key":           {mem, nil},
		"equal halves":     {mem, append(bytes.Clone(key[:32]), key[:32]...)},
	} {
		if _, err := New(c.mem, c.key); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if !bytes.Equal(mem, make([]byte, len(mem))) {
		t.Error("a key that was refused left something in the memory")
	}
}

func TestRuleC19_EqualHalvesAreRefused(t *testing.T) {
	key := random(1, KeySize)
	copy(key[32:], key[:32])
	if _, err := New(aes256.InsecureMemory(Size), key); err == nil {
		t.Fatal("key1 = key2 was taken")
	}
	for bit := range 256 {
		other := bytes.Clone(key)
		other[32+bit/8] ^= 1 << (bit % 8)
		if _, err := New(aes256.InsecureMemory(Size), other); err != nil {
			t.Fatalf("halves that differ in bit %d: %v", bit, err)
		}
	}
}

func TestMemoryIsAsPromised(t *testing.T) {
	if Size > 3<<10 || Size%64 != 0 {
		t.Errorf("Size = %d", Size)
	}
	mem, key := aes256.InsecureMemory(Size), random(1, KeySize)
	c, err := New(mem, key)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(mem, key[:32]) || !bytes.Contains(mem, key[32:]) {
		t.Error("the schedules are not in the caller's memory")
	}
	c.Wipe()
	if !bytes.Equal(mem, make([]byte, Size)) {
		t.Error("Wipe left something")
	}
	c.Wipe()
	mustPanic(t, "Encrypt after Wipe", func() { c.Encrypt(make([]byte, 512), make([]byte, 512), 512, 0) })
	mustPanic(t, "Decrypt after Wipe", func() { c.Decrypt(make([]byte, 512), make([]byte, 512), 512, 0) })
}

func TestCallersMistakesPanic(t *testing.T) {
	c, buf := newCipher(t, random(1, KeySize)), make([]byte, 4*4096)
	for name, crypt := range map[string]crypter{"Encrypt": (*Cipher).Encrypt, "Decrypt": (*Cipher).Decrypt} {
		for _, m := range []struct {
			what       string
			dst, src   []byte
			sectorSize int
		}{
			{"half a sector", buf, buf[:256], 512},
			{"a sector and a byte", buf, buf[:513], 512},
			{"sectors of 512 as 4096", buf, buf[:512], 4096},
			{"sectors of 0", buf, buf[:512], 0},
			{"sectors of -512", buf, buf[:512], -512},
			{"sectors of 1024", buf, buf[:1024], 1024},
			{"sectors of 8192", buf, buf[:8192], 8192},
			{"short dst", buf[:511], buf[4096:][:512], 512},
			{"dst ahead by a byte", buf[1:], buf[:512], 512},
			{"dst ahead by a sector", buf[512:], buf[:1024], 512},
			{"dst behind by a block", buf, buf[16:][:512], 512},
		} {
			mustPanic(t, name+": "+m.what, func() { crypt(c, m.dst, m.src, m.sectorSize, 0) })
		}
		crypt(c, nil, nil, 512, 0)
		crypt(c, buf[512:], buf[:512], 512, 0) // neighbours, no overlap
	}
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s does not panic", what)
		}
	}()
	f()
}
