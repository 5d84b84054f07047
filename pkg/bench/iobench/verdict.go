package iobench

import (
	"context"
	"slices"

	"nbdcrypt/pkg/bench"
)

// allowance is what our server may take beyond plain service and the cipher itself.
const allowance = 1.2

// Cipher is what the cipher alone costs on one core, in seconds per GiB, in runs as the server makes them.
type Cipher struct {
	Impl    string  `json:"impl"`
	Encrypt float64 `json:"encrypt_seconds_per_gib"`
	Decrypt float64 `json:"decrypt_seconds_per_gib"`
}

// CPUVerdict tells whether our server takes no more processor time per GiB than nbdkit's for a plain file, the cipher itself, and a
// fifth of both.
type CPUVerdict struct {
	Site        string  `json:"site"`
	Column      string  `json:"column"`
	Connections int     `json:"connections"`
	Ours        float64 `json:"ours"`   // all in seconds per GiB
	Plain       float64 `json:"plain"`  // nbdkit's
	Cipher      float64 `json:"cipher"` // of what the column does
	Limit       float64 `json:"limit"`
	Met         bool    `json:"met"`
}

// cipherRounds are enough for a median, and take a second.
const cipherRounds = 51

// cipherCost measures the implementation that the server uses.
func cipherCost(ctx context.Context) (Cipher, error) {
	c := Cipher{Impl: bench.Implementations()[0]}
	report, err := bench.Cipher(ctx, bench.Options{Impls: []string{c.Impl}, Rounds: cipherRounds, Progress: func(int, int) {}})
	if err != nil {
		return Cipher{}, err
	}
	for _, row := range report.Rows {
		if row.SectorSize != sector || row.RunBytes != 64<<10 {
			continue
		}
		if cost := thousandths(float64(1<<30) / float64(row.BytesPerSecond)); row.Op == "encrypt" {
			c.Encrypt = cost
		} else {
			c.Decrypt = cost
		}
	}
	return c, nil
}

// verdicts are for the columns that move so much that bytes are what costs.
func verdicts(rows []Row, cipher Cipher) (all []CPUVerdict) {
	for _, r := range rows {
		ours, some := r.of(ourselves)
		plain, too := r.of(nbdkitPlain)
		if !r.Large() || !some || !too {
			continue
		}
		v := CPUVerdict{Site: r.Site, Column: r.Column, Connections: r.Connections, Ours: ours.CPUPerGiB, Plain: plain.CPUPerGiB, Cipher: cipher.Encrypt}
		if named(r.Column).reads() {
			v.Cipher = cipher.Decrypt
		}
		v.Limit = thousandths((v.Plain + v.Cipher) * allowance)
		v.Met = v.Ours <= v.Limit
		all = append(all, v)
	}
	return all
}

// of is what a server did, where it did.
func (r Row) of(name string) (Result, bool) {
	i := slices.IndexFunc(r.Results, func(one Result) bool { return one.Server == name && one.BytesPerSecond > 0 })
	if i < 0 {
		return Result{}, false
	}
	return r.Results[i], true
}
