package bench

const (
	encrypt = "encrypt"
	decrypt = "decrypt"
)

// largestRun is one MiB, more than many a processor has of L2.
const largestRun = 1 << 20

// Row is the speed of one implementation at one job. Its JSON is that of docs/cli.md.
type Row struct {
	Impl           string `json:"impl"`
	Op             string `json:"op"`
	SectorSize     int    `json:"sector_size"`
	RunBytes       int    `json:"run_bytes"`
	BytesPerSecond int64  `json:"bytes_per_second"`
	// OfCeiling is the share of the ceiling, nil where there is none.
	OfCeiling *float64 `json:"of_ceiling"`
}

// rowsOf are the jobs that an implementation is measured at.
func rowsOf(impl string) (rows []Row) {
	for _, op := range []string{encrypt, decrypt} {
		for _, sector := range []int{512, 4096} {
			for _, size := range []int{512, 4 << 10, 64 << 10, largestRun} {
				if size >= sector {
					rows = append(rows, Row{Impl: impl, Op: op, SectorSize: sector, RunBytes: size})
				}
			}
		}
	}
	return rows
}
