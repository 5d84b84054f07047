//go:build keytest

package secret

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
)

// This build hands every key to the tests that search for keys: when a key goes, and before it is wiped, a record of it is appended
// to the file that $NBDCRYPT_KEYTEST names. It is a line of kind, id, purpose and length, and then the bytes. SIGUSR2 collects
// garbage, and is answered by an empty record of the kind "collected".

var out struct {
	sync.Mutex
	fd int
}

func init() {
	path := os.Getenv("NBDCRYPT_KEYTEST")
	if path == "" {
		out.fd = -1
		return
	}
	var err error
	if out.fd, err = unix.Open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC, 0o600); err != nil {
		panic(fmt.Errorf("secret: NBDCRYPT_KEYTEST: %w", err))
	}
	collect := make(chan os.Signal, 1)
	signal.Notify(collect, unix.SIGUSR2)
	go func() {
		for range collect {
			runtime.GC()
			runtime.GC() // what the first one found unreachable may have been waiting to be swept
			debug.FreeOSMemory()
			record(Purpose{Kind: "collected"}, nil)
		}
	}()
}

func handOut(l *lease) { record(l.purpose, l.mem) }

// record has the kernel copy the key from where it lies, so that no other memory of the process ever holds it.
func record(why Purpose, key []byte) {
	if out.fd < 0 {
		return
	}
	head := fmt.Appendf(nil, "%q %q %q %d\n", why.Kind, why.ID, why.For, len(key))
	out.Lock()
	defer out.Unlock()
	if n, err := unix.Writev(out.fd, [][]byte{head, key}); err != nil || n != len(head)+len(key) {
		panic(fmt.Errorf("secret: NBDCRYPT_KEYTEST: %d bytes written: %w", n, err))
	}
}
