// Package kit is the recovery kit: a secret of 32 bytes as shares of which any k of n give it back (Shamir), and a share as four
// lines that a person can copy from paper, each with a sum of its own, so that a typo is found in its line.
//
// Everything works in memory that the caller passes in, without branches or table look-ups that depend on what is secret, and
// is meant to be called in secret.Do. It does not tell whether shares belong together beyond what their heads say, nor whether
// the secret is the right one: what the secret opens does.
package kit

import (
	"errors"
	"fmt"
)

// Sizes in bytes, and the bounds of a kit.
const (
	SecretSize = 32
	TagSize    = 4
	ShareSize  = headSize + SecretSize
	// MaxShares bounds how many shares a kit has.
	MaxShares = 16

	headSize = 1 + TagSize + 3
	version  = 1
)

// Head is what every share says of itself.
type Head struct {
	// Tag tells kits apart.
	Tag [TagSize]byte
	// Number is which share it is, from 1.
	Number int
	// Threshold of Count shares give the secret back; 1 of 1 is a kit that was not split.
	Threshold, Count int
}

var errShare = errors.New("kit: it is no share of a recovery kit")

func (h Head) check() error {
	if h.Number < 1 || h.Number > h.Count || CheckSplit(h.Count, h.Threshold) != nil {
		return fmt.Errorf("%w: it is number %d of %d, of which %d are needed", errShare, h.Number, h.Count, h.Threshold)
	}
	return nil
}

// CheckSplit tells whether a kit can have so many shares of which so many are needed.
func CheckSplit(count, threshold int) error {
	if count == 1 && threshold == 1 || count >= 2 && count <= MaxShares && threshold >= 2 && threshold <= count {
		return nil
	}
	return fmt.Errorf("kit: a kit has 2 to %d shares, of which 2 or more are needed, or is not split: %d of %d", MaxShares, threshold, count)
}

// HeadOf reads what a share says of itself.
func HeadOf(share []byte) (h Head, err error) {
	if len(share) != ShareSize {
		return h, fmt.Errorf("%w: it has %d bytes", errShare, len(share))
	}
	if share[0] != version {
		return h, fmt.Errorf("%w: it has version %d, this build reads version %d", errShare, share[0], version)
	}
	h.Tag = [TagSize]byte(share[1:])
	h.Number, h.Threshold, h.Count = int(share[5]), int(share[6]), int(share[7])
	return h, h.check()
}

// Split lays the shares of a secret into shares, one after the other. random holds threshold-1 times as many random bytes as
// the secret has.
func Split(shares, secret, random []byte, tag [TagSize]byte, threshold int) error {
	count := len(shares) / ShareSize
	if err := CheckSplit(count, threshold); err != nil {
		return err
	}
	if len(shares)%ShareSize != 0 || len(secret) != SecretSize || len(random) != (threshold-1)*SecretSize {
		return errShare
	}
	for i := range count {
		share := shares[i*ShareSize:][:ShareSize]
		share[0] = version
		copy(share[1:], tag[:])
		share[5], share[6], share[7] = byte(i+1), byte(threshold), byte(count)
		evaluate(share[headSize:], secret, random, byte(i+1))
	}
	return nil
}

// Combine gives the secret back from shares, one after the other, whose heads agree and whose numbers differ. More of them than
// the threshold are all made use of: one that was altered shows.
func Combine(secret, shares []byte) error {
	count := len(shares) / ShareSize
	if count < 1 || count > MaxShares || len(shares)%ShareSize != 0 || len(secret) != SecretSize {
		return errShare
	}
	clear(secret)
	for i := range count {
		share := shares[i*ShareSize:][:ShareSize]
		weight := byte(1)
		for j := range count {
			if other := shares[j*ShareSize+5]; j != i {
				weight = mul(weight, mul(other, inverse(other^share[5])))
			}
		}
		for b := range secret {
			secret[b] ^= mul(weight, share[headSize+b])
		}
	}
	return nil
}
