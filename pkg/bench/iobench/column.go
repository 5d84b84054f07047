package iobench

import "slices"

// kind is what generates a column's load.
type kind int

const (
	byFio  kind = iota
	byCopy      // nbdcopy
	byFUA       // our own client: fio's engine for NBD has no FUA
)

// column is one kind of load.
type column struct {
	name  string
	about string
	kind  kind
	rw    string // in the words of fio
	block int
	depth int // requests in flight on each connection
	// empty: on a disk that was made for this, each block once.
	empty bool
	// fsync is after how many writes there is a flush; 0 is never.
	fsync int
	// goal is what our speed should be at least, as a multiple of a peer's.
	goal map[string]float64
}

// The goals of the project, which the table compares with.
var (
	goalLarge = map[string]float64{nbdkitPlain: 1, nbdkitLUKS: 2.4, qemuLUKS: 3}
	goalSmall = map[string]float64{nbdkitPlain: 1.3, nbdkitLUKS: 1.6, qemuLUKS: 3}
	goalCopy  = map[string]float64{nbdkitPlain: 1, qemuLUKS: 3}
)

// columns are all that is measured, in the order of the table.
func columns() []column {
	const small, large = 4 << 10, 1 << 20
	return []column{
		{name: "read-1m", about: "read 1 MiB ×8", rw: "read", block: large, depth: 8, goal: goalLarge},
		{name: "write-1m", about: "write 1 MiB ×8", rw: "write", block: large, depth: 8, goal: goalLarge},
		{name: "randread-4k", about: "random read 4 KiB ×32", rw: "randread", block: small, depth: 32, goal: goalSmall},
		{name: "randwrite-4k", about: "random write 4 KiB ×32", rw: "randwrite", block: small, depth: 32, goal: goalSmall},
		{name: "randread-4k-1", about: "random read 4 KiB ×1", rw: "randread", block: small, depth: 1, goal: goalSmall},
		{name: "nbdcopy", about: "nbdcopy to null:", kind: byCopy, rw: "read", goal: goalCopy},
		{name: "first-1m", about: "first write 1 MiB ×8", rw: "write", block: large, depth: 8, empty: true},
		{name: "first-4k", about: "first random write 4 KiB ×32", rw: "randwrite", block: small, depth: 32, empty: true},
		{name: "fua-4k", about: "random write 4 KiB ×32, FUA", kind: byFUA, rw: "randwrite", block: small, depth: 32},
		{name: "fsync-16", about: "random write 4 KiB ×32, flush every 16", rw: "randwrite", block: small, depth: 32, fsync: 16},
	}
}

// named is the column with that name.
func named(name string) column {
	all := columns()
	return all[slices.IndexFunc(all, func(c column) bool { return c.name == name })]
}

// Columns are the names of all columns.
func Columns() []string { return names(columns(), func(c column) string { return c.name }) }

func names[T any](of []T, name func(T) string) []string {
	list := make([]string, len(of))
	for i, one := range of {
		list[i] = name(one)
	}
	return list
}

// chosen are those of all whose name was asked for, or all.
func chosen[T any](all []T, name func(T) string, asked []string) []T {
	return slices.DeleteFunc(all, func(one T) bool { return len(asked) > 0 && !slices.Contains(asked, name(one)) })
}

// reads tells whether the load reads.
func (c column) reads() bool { return c.rw == "read" || c.rw == "randread" }

// large tells that bytes a second say more than operations a second.
func (c column) large() bool { return c.block == 0 || c.block >= 1<<20 }
