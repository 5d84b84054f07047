package aes256

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"math/rand/v2"
	"reflect"
	"testing"
)

// random returns n reproducible bytes.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b)
	return b
}

func newBlock(t testing.TB, key []byte) (*Block, cipher.Block) {
	t.Helper()
	b, err := New(InsecureMemory(Size), key)
	if err != nil {
		t.Fatal(err)
	}
	oracle, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return b, oracle
}

func TestBlockEqualsStandardLibrary(t *testing.T) {
	for seed := range uint64(3000) {
		data := random(seed, KeySize+BlockSize)
		b, oracle := newBlock(t, data[:KeySize])
		src, got, want := data[KeySize:], make([]byte, BlockSize), make([]byte, BlockSize)
		b.Encrypt(got, src)
		oracle.Encrypt(want, src)
		if !bytes.Equal(got, want) {
			t.Fatalf("seed %d: Encrypt = %x, want %x", seed, got, want)
		}
		b.Decrypt(got, src)
		oracle.Decrypt(want, src)
		if !bytes.Equal(got, want) {
			t.Fatalf("seed %d: Decrypt = %x, want %x", seed, got, want)
		}
		b.Encrypt(got, got)
		if !bytes.Equal(got, src) {
			t.Fatalf("seed %d: Decrypt, then Encrypt in place = %x, want %x", seed, got, src)
		}
	}
}

func TestBlockWritesOneBlock(t *testing.T) {
	b, _ := newBlock(t, random(1, KeySize))
	for name, crypt := range map[string]func(dst, src []byte){"Encrypt": b.Encrypt, "Decrypt": b.Decrypt} {
		buf, src := random(2, 3*BlockSize+3), random(3, 2*BlockSize)
		before := bytes.Clone(buf)
		crypt(buf[17:], src)
		if !bytes.Equal(buf[:17], before[:17]) || !bytes.Equal(buf[17+BlockSize:], before[17+BlockSize:]) {
			t.Errorf("%s wrote outside its block", name)
		}
		mustPanic(t, name+" of 15 bytes", func() { crypt(buf, src[:15]) })
		mustPanic(t, name+" into 15 bytes", func() { crypt(buf[:15], src) })
		mustPanic(t, name+" with partial overlap", func() { crypt(buf[1:], buf) })
	}
}

func TestScheduleLiesInTheCallersMemory(t *testing.T) {
	key, mem := random(1, KeySize), InsecureMemory(Size)
	b, err := New(mem, key)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(mem[:KeySize], key) {
		t.Error("the schedule does not begin with the key (FIPS 197, 5.2)")
	}
	b.Wipe()
	if !bytes.Equal(mem, make([]byte, Size)) {
		t.Error("Wipe left something")
	}
	b.Wipe()
	mustPanic(t, "Encrypt after Wipe", func() { b.Encrypt(make([]byte, 16), make([]byte, 16)) })
}

func TestNewRefuses(t *testing.T) {
	mem := InsecureMemory(GCMSize + 16)
	for name, c := range map[string]struct{ mem, key []byte }{
		"short memory":     {mem[:Size-1], make([]byte, KeySize)},
		"unaligned memory": {mem[8:], make([]byte, KeySize)},
		"short key":        {mem, make([]byte, KeySize-1)},
		"long key":         {mem, make([]byte, KeySize+1)},
		"no key":           {mem, nil},
		"no memory":        {nil, make([]byte, KeySize)},
	} {
		if _, err := New(c.mem, c.key); err == nil {
			t.Errorf("New: %s was taken", name)
		}
		if _, err := NewGCM(c.mem, c.key); err == nil {
			t.Errorf("NewGCM: %s was taken", name)
		}
	}
	if _, err := NewGCM(mem[:GCMSize-1], make([]byte, KeySize)); err == nil {
		t.Error("NewGCM: short memory was taken")
	}
}

func TestNoAllocations(t *testing.T) {
	b, _ := newBlock(t, random(1, KeySize))
	buf := make([]byte, BlockSize)
	if n := testing.AllocsPerRun(100, func() { b.Encrypt(buf, buf); b.Decrypt(buf, buf) }); n != 0 {
		t.Errorf("a block allocates %v times", n)
	}
	g, _ := newGCM(t, random(1, KeySize))
	nonce, text, sealed := make([]byte, NonceSize), make([]byte, 100), make([]byte, 100+Overhead)
	if n := testing.AllocsPerRun(100, func() { g.Seal(sealed, nonce, text, nonce); g.Open(text, nonce, sealed, nonce) }); n != 0 {
		t.Errorf("a message allocates %v times", n)
	}
}

// TestRuleC19_EachWrongAnswerIsFound flips one digit of each published answer in turn.
func TestRuleC19_EachWrongAnswerIsFound(t *testing.T) {
	if err := SelfTest(); err != nil {
		t.Fatal(err)
	}
	fields := reflect.TypeFor[answers]()
	for i := range fields.NumField() {
		bad := []string{
			published.key, published.plaintext, published.ciphertext,
			published.gcmKey, published.nonce, published.text, published.aad, published.sealed, published.tag,
		}
		wrong := "0"
		if bad[i][5] == '0' {
			wrong = "1"
		}
		bad[i] = bad[i][:5] + wrong + bad[i][6:]
		a := answers{bad[0], bad[1], bad[2], bad[3], bad[4], bad[5], bad[6], bad[7], bad[8]}
		if a.testBlock() == nil && a.testGCM() == nil {
			t.Errorf("a wrong %s passes", fields.Field(i).Name)
		}
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
