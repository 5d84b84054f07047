package child

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"nbdcrypt/pkg/secret"
)

// TPM is a TPM 2.0 and the state of it that a secret is bound to.
type TPM struct {
	// Device is a device such as /dev/tpmrm0, or the unix socket of a TPM in software.
	Device string
	// Bank is sha256 or sha384, and PCRs has a bit for each of its registers that count; without any, the TPM alone counts.
	Bank string
	PCRs uint32
}

// Sealed is a secret as only its TPM opens it.
type Sealed struct {
	// Parent is the handle of the storage key that the secret lies under; 0 is the one that the TPM makes anew each time from
	// its owner's seed (the standard ECC P-256 template).
	Parent uint32
	// SRK is that key's public area (TPMT_PUBLIC). The session's secret is encrypted to it, so that whoever sits between
	// must have sat there when it was sealed.
	SRK []byte
	// Public and Private are the sealed object (TPMT_PUBLIC, TPM2B_PRIVATE's buffer).
	Public, Private []byte
}

// SecretSize is the length of what is sealed.
const SecretSize = 32

// What can be told apart of a TPM that does not open a secret.
var (
	// ErrTPMGone: nothing speaks there.
	ErrTPMGone = errors.New("the TPM can't be reached")
	// ErrPCRs: the registers have other values than when it was sealed.
	ErrPCRs = errors.New("the registers (PCRs) of the TPM have other values than when the secret was sealed")
	// ErrOtherTPM: it is another one, or it was cleared.
	ErrOtherTPM = errors.New("it is another TPM than the secret was sealed by, or it was cleared")
	// ErrBank: it keeps no such registers.
	ErrBank = errors.New("the TPM does not keep these registers (PCRs)")
	// ErrTPMSlow: it gave no answer in time.
	ErrTPMSlow = errors.New("the TPM gave no answer in time")
)

const (
	classGone = iota + 2
	classPCRs
	classOther
	classBank
)

const (
	maxDevice = 255
	maxPublic = 700 // an RSA-2048 key's, and some
	maxTPM    = 64 + maxDevice + 2*maxPublic + 1024
)

var (
	sealOperation   = &operation{word: "tpm2-seal", request: maxTPM + SecretSize, answer: maxTPM, timeout: time.Minute, do: doSeal}
	unsealOperation = &operation{word: "tpm2-unseal", request: maxTPM, answer: SecretSize, timeout: 30 * time.Second, do: doUnseal}
)

// SealTPM seals a secret of SecretSize bytes.
func SealTPM(ctx context.Context, t TPM, key *secret.Key) (s Sealed, err error) {
	head := append(t.fields(), binary.BigEndian.AppendUint16(nil, uint16(key.Len()))...)
	answer, err := run(ctx, sealOperation, secret.Purpose{Kind: "child", For: "sealing a secret by the TPM"}, head, key.Bytes())
	if err != nil {
		return s, explainTPM(err)
	}
	defer answer.Destroy()
	f, err := takeFields(append([]byte{}, answer.Bytes()...), 4) // nothing in it is secret
	if err != nil || len(f[0]) != 4 {
		return s, errors.Join(errors.New("child: the TPM's answer is wrong"), err)
	}
	return Sealed{binary.BigEndian.Uint32(f[0]), f[1], f[2], f[3]}, nil
}

// UnsealTPM opens a sealed secret, which is the caller's to destroy.
func UnsealTPM(ctx context.Context, t TPM, s Sealed, why secret.Purpose) (*secret.Key, error) {
	b := putField(t.fields(), binary.BigEndian.AppendUint32(nil, s.Parent))
	b = putField(putField(putField(b, s.SRK), s.Public), s.Private)
	key, err := run(ctx, unsealOperation, why, b)
	return key, explainTPM(err)
}

func (t TPM) fields() []byte {
	b := putField(putField(nil, []byte(t.Device)), []byte(t.Bank))
	return putField(b, binary.BigEndian.AppendUint32(nil, t.PCRs))
}

func tpmOf(f [][]byte) (TPM, error) {
	if len(f[2]) != 4 || len(f[0]) == 0 || len(f[0]) > maxDevice {
		return TPM{}, fmt.Errorf("%w: a TPM", errRequest)
	}
	return TPM{string(f[0]), string(f[1]), binary.BigEndian.Uint32(f[2])}, nil
}

func doSeal(request, answer []byte) (int, error) {
	f, err := takeFields(request, 4)
	if err != nil {
		return 0, err
	}
	t, err := tpmOf(f)
	if err != nil {
		return 0, err
	}
	if len(f[3]) != SecretSize {
		return 0, fmt.Errorf("%w: a secret of %d bytes", errRequest, len(f[3]))
	}
	s, err := t.seal(f[3])
	if err != nil {
		return 0, err
	}
	b := putField(nil, binary.BigEndian.AppendUint32(nil, s.Parent))
	b = putField(putField(putField(b, s.SRK), s.Public), s.Private)
	if len(b) > len(answer) || len(s.SRK) > maxPublic || len(s.Public) > maxPublic {
		return 0, errors.New("the TPM gave more than a slot holds")
	}
	return copy(answer, b), nil
}

func doUnseal(request, answer []byte) (int, error) {
	f, err := takeFields(request, 7)
	if err != nil {
		return 0, err
	}
	t, err := tpmOf(f)
	if err != nil {
		return 0, err
	}
	if len(f[3]) != 4 {
		return 0, fmt.Errorf("%w: a parent", errRequest)
	}
	data, err := t.unseal(Sealed{binary.BigEndian.Uint32(f[3]), f[4], f[5], f[6]})
	if err != nil {
		return 0, err
	}
	defer clear(data)
	if len(data) != SecretSize {
		return 0, fmt.Errorf("it unsealed %d bytes", len(data))
	}
	return copy(answer, data), nil
}

// explainTPM gives the class of a failure its name.
func explainTPM(err error) error {
	named := map[byte]error{classGone: ErrTPMGone, classPCRs: ErrPCRs, classOther: ErrOtherTPM, classBank: ErrBank}[classOf(err)]
	switch {
	case err == nil:
		return nil
	case named != nil:
		return fmt.Errorf("%w: %w", named, err)
	case errors.As(err, &errSlow{}), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrTPMSlow, err)
	}
	return fmt.Errorf("the TPM: %w", err)
}
