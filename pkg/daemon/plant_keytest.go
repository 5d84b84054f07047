//go:build keytest

package daemon

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/aes256"
	"nbdcrypt/pkg/volume"
)

// This build leaves copies of a key behind when it is wiped, as $NBDCRYPT_KEYTEST_PLANT asks: forms of a key, with commas between, each
// with @heap, @stack or @mmap for where it is to stay. A search that does not find them is of no use.

// planted keeps what was put on the heap.
var planted struct {
	sync.Mutex
	list [][]byte
}

func plant(keys []volume.LayerKey) {
	for word := range strings.SplitSeq(os.Getenv("NBDCRYPT_KEYTEST_PLANT"), ",") {
		name, where, _ := strings.Cut(word, "@")
		if name == "" {
			continue
		}
		form := forms[name]
		if form == nil {
			panic("daemon: NBDCRYPT_KEYTEST_PLANT: no form " + name)
		}
		for _, k := range keys {
			put(where, func(to []byte) { form(to, k.Schedules) })
		}
	}
}

// put has a form written right where it is to stay.
func put(where string, form func(to []byte)) {
	switch where {
	case "heap":
		b := make([]byte, aes256.Size)
		form(b)
		planted.Lock()
		defer planted.Unlock()
		planted.list = append(planted.list, b)
	case "stack":
		done, never := make(chan struct{}), make(chan struct{})
		go func() {
			var b [aes256.Size]byte
			form(b[:])
			close(done)
			<-never
			form(b[:])
		}()
		<-done
	case "mmap":
		b, err := unix.Mmap(-1, 0, aes256.Size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_SHARED)
		if err != nil {
			panic(fmt.Errorf("daemon: NBDCRYPT_KEYTEST_PLANT: %w", err))
		}
		form(b)
	default:
		panic("daemon: NBDCRYPT_KEYTEST_PLANT: no place " + where)
	}
}

// forms write a form of the key of these schedules: the data key's, its inverse's, the tweak key's. A round key is there four
// times in 64 bytes; the first two of a schedule are the key.
var forms = map[string]func(to, schedules []byte){
	"raw": func(to, schedules []byte) {
		for i, at := range []int{0, 64, 2 * aes256.Size, 2*aes256.Size + 64} {
			copy(to[16*i:], schedules[at:][:16])
		}
	},
	"half": func(to, schedules []byte) {
		copy(to, schedules[2*aes256.Size:][:16])
		copy(to[16:], schedules[2*aes256.Size+64:][:16])
	},
	"schedule": func(to, schedules []byte) {
		for r := range 15 {
			copy(to[16*r:], schedules[aes256.Size+64*r:][:16])
		}
	},
	"vector": func(to, schedules []byte) { copy(to, schedules[:aes256.Size]) },
	"words": func(to, schedules []byte) {
		for i := range 15 * 16 {
			to[i] = schedules[64*(i/16)+(i%16)^3]
		}
	},
	"hex": func(to, schedules []byte) {
		hex.Encode(to, schedules[:16])
		hex.Encode(to[32:], schedules[64:][:16])
	},
}
