// Command asm writes the assembly of package xts and of those around it: go run . -kernel NAME -out FILE. Without a name it lists
// them. The tests of xts run it for every file and want what is committed.
package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/mmcloughlin/avo/build"
)

// kernels are the sets that make up one file each.
var kernels = map[string]func(){
	"aes256": aes256,
	"aesni":  aesni,
	"avx2":   avx2,
	"avx512": avx512,
	"clear":  clearing,
	"cpuid":  cpuid,
	"rounds": rounds,
}

func main() {
	name := flag.String("kernel", "", "which set of kernels to write")
	flag.Parse()
	if *name == "" {
		for _, k := range slices.Sorted(maps.Keys(kernels)) {
			fmt.Println(k)
		}
		return
	}
	write, ok := kernels[*name]
	if !ok {
		fmt.Fprintf(os.Stderr, "no kernels called %q\n", *name)
		os.Exit(2)
	}
	build.ConstraintExpr("!purego")
	write()
	build.Generate()
}
