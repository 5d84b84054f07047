package child

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// storedSRK is where the storage root key lies that an owner made for good (TCG TPM v2.0 Provisioning Guidance, 7.8).
const storedSRK = tpm2.TPMHandle(0x81000001)

// sessionNonce is how many bytes a nonce of a session has.
const sessionNonce = 16

// parentKey is the loaded key that secrets lie under.
type parentKey struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public tpm2.TPMTPublic
	stored bool
}

// private is a session whose parameters nobody on the bus reads: its key comes from a salt that is encrypted to the parent.
func (p parentKey) private(which tpm2.AuthOption) []tpm2.AuthOption {
	return []tpm2.AuthOption{tpm2.Salted(p.handle, p.public), which}
}

func (p parentKey) auth() tpm2.AuthHandle {
	hidden := tpm2.HMAC(tpm2.TPMAlgSHA256, sessionNonce, p.private(tpm2.AESEncryption(128, tpm2.EncryptIn))...)
	return tpm2.AuthHandle{Handle: p.handle, Name: p.name, Auth: hidden}
}

func (t TPM) selection() tpm2.TPMLPCRSelection {
	bank := map[string]tpm2.TPMAlgID{"sha256": tpm2.TPMAlgSHA256, "sha384": tpm2.TPMAlgSHA384}[t.Bank]
	var list []uint
	for n := range uint(32) {
		if t.PCRs>>n&1 == 1 {
			list = append(list, n)
		}
	}
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: bank, PCRSelect: tpm2.PCClientCompatible.PCRs(list...)}}}
}

func (t TPM) seal(data []byte) (s Sealed, err error) {
	tpm, err := openTPM(t.Device)
	if err != nil {
		return s, err
	}
	defer tpm.Close()
	parent, err := findParent(tpm)
	if err != nil {
		return s, err
	}
	defer parent.flush(tpm)
	policy, err := t.policy(tpm)
	if err != nil {
		return s, err
	}
	made, err := tpm2.Create{
		ParentHandle: parent.auth(),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: data})}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256, AuthPolicy: tpm2.TPM2BDigest{Buffer: policy},
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, NoDA: true}}),
	}.Execute(tpm)
	if err != nil {
		return s, fmt.Errorf("TPM2_Create: %w", err)
	}
	public, err := made.OutPublic.Contents()
	if err != nil {
		return s, fmt.Errorf("TPM2_Create: %w", err)
	}
	if parent.stored {
		s.Parent = uint32(storedSRK)
	}
	s.SRK, s.Public, s.Private = tpm2.Marshal(parent.public), tpm2.Marshal(*public), made.OutPrivate.Buffer
	return s, nil
}

func (t TPM) unseal(s Sealed) ([]byte, error) {
	srk, err := tpm2.Unmarshal[tpm2.TPMTPublic](s.SRK)
	if err != nil {
		return nil, fmt.Errorf("the storage key: %w", err)
	}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](s.Public)
	if err != nil {
		return nil, fmt.Errorf("the sealed object: %w", err)
	}
	tpm, err := openTPM(t.Device)
	if err != nil {
		return nil, err
	}
	defer tpm.Close()
	parent, err := loadParent(tpm, s.Parent != 0)
	if err != nil {
		return nil, err
	}
	defer parent.flush(tpm)
	if !bytes.Equal(tpm2.Marshal(parent.public), s.SRK) {
		return nil, &failure{classOther, errors.New("its storage key is another one")}
	}
	parent.public = *srk
	object, err := tpm2.Load{ParentHandle: parent.auth(), InPrivate: tpm2.TPM2BPrivate{Buffer: s.Private}, InPublic: tpm2.New2B(*public)}.Execute(tpm)
	if errors.Is(err, tpm2.TPMRCIntegrity) {
		return nil, &failure{classOther, fmt.Errorf("TPM2_Load: %w", err)}
	}
	if err != nil {
		return nil, fmt.Errorf("TPM2_Load: %w", err)
	}
	defer flush(tpm, object.ObjectHandle)
	session, end, err := tpm2.PolicySession(tpm, tpm2.TPMAlgSHA256, sessionNonce, parent.private(tpm2.AESEncryption(128, tpm2.EncryptOut))...)
	if err != nil {
		return nil, fmt.Errorf("TPM2_StartAuthSession: %w", err)
	}
	defer end()
	if t.PCRs != 0 {
		if _, err := (tpm2.PolicyPCR{PolicySession: session.Handle(), Pcrs: t.selection()}).Execute(tpm); err != nil {
			return nil, fmt.Errorf("TPM2_PolicyPCR: %w", err)
		}
	}
	opened, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: object.ObjectHandle, Name: object.Name, Auth: session}}.Execute(tpm)
	switch {
	case errors.Is(err, tpm2.TPMRCPolicyFail):
		return nil, &failure{classPCRs, fmt.Errorf("TPM2_Unseal: %w", err)}
	case err != nil:
		return nil, fmt.Errorf("TPM2_Unseal: %w", err)
	}
	return opened.OutData.Buffer, nil
}

// policy is the digest that an object gets which opens only while the registers are as they are now. Without registers it is
// that of a policy that asks nothing.
func (t TPM) policy(tpm transport.TPM) ([]byte, error) {
	if t.PCRs == 0 {
		return make([]byte, 32), nil
	}
	if err := t.checkBank(tpm); err != nil {
		return nil, err
	}
	session, end, err := tpm2.PolicySession(tpm, tpm2.TPMAlgSHA256, sessionNonce, tpm2.Trial())
	if err != nil {
		return nil, fmt.Errorf("TPM2_StartAuthSession: %w", err)
	}
	defer end()
	if _, err := (tpm2.PolicyPCR{PolicySession: session.Handle(), Pcrs: t.selection()}).Execute(tpm); err != nil {
		return nil, fmt.Errorf("TPM2_PolicyPCR: %w", err)
	}
	digest, err := tpm2.PolicyGetDigest{PolicySession: session.Handle()}.Execute(tpm)
	if err != nil {
		return nil, fmt.Errorf("TPM2_PolicyGetDigest: %w", err)
	}
	return digest.PolicyDigest.Buffer, nil
}

// checkBank refuses registers that the TPM does not keep: it would take them for none.
func (t TPM) checkBank(tpm transport.TPM) error {
	has, err := tpm2.GetCapability{Capability: tpm2.TPMCapPCRs, PropertyCount: 1}.Execute(tpm)
	if err != nil {
		return fmt.Errorf("TPM2_GetCapability: %w", err)
	}
	banks, err := has.CapabilityData.Data.AssignedPCR()
	if err != nil {
		return fmt.Errorf("TPM2_GetCapability: %w", err)
	}
	want := t.selection().PCRSelections[0]
	kept := slices.ContainsFunc(banks.PCRSelections, func(b tpm2.TPMSPCRSelection) bool {
		if b.Hash != want.Hash || len(b.PCRSelect) < len(want.PCRSelect) {
			return false
		}
		for i, bits := range want.PCRSelect {
			if b.PCRSelect[i]&bits != bits {
				return false
			}
		}
		return true
	})
	if !kept {
		return &failure{classBank, fmt.Errorf("bank %s, registers %#x", t.Bank, t.PCRs)}
	}
	return nil
}

// findParent takes the storage root key that the TPM's owner made for good, and where there is none the one from the seed.
func findParent(tpm transport.TPM) (parentKey, error) {
	parent, err := loadParent(tpm, true)
	if classOf(err) == classOther {
		return loadParent(tpm, false)
	}
	return parent, err
}

func loadParent(tpm transport.TPM, stored bool) (p parentKey, err error) {
	var public tpm2.TPM2BPublic
	if stored {
		read, err := tpm2.ReadPublic{ObjectHandle: storedSRK}.Execute(tpm)
		var code tpm2.TPMRC
		if errors.As(err, &code) {
			return p, &failure{classOther, fmt.Errorf("TPM2_ReadPublic: %w", err)}
		}
		if err != nil {
			return p, fmt.Errorf("TPM2_ReadPublic: %w", err)
		}
		p.handle, p.name, p.stored, public = storedSRK, read.Name, true, read.OutPublic
	} else {
		made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(tpm)
		if err != nil {
			return p, fmt.Errorf("TPM2_CreatePrimary: %w", err)
		}
		p.handle, p.name, public = made.ObjectHandle, made.Name, made.OutPublic
	}
	contents, err := public.Contents()
	if err != nil {
		return p, fmt.Errorf("the storage key: %w", err)
	}
	p.public = *contents
	return p, nil
}

func (p parentKey) flush(tpm transport.TPM) {
	if !p.stored {
		flush(tpm, p.handle)
	}
}

// flush gives a transient object's place back, which a TPM without a resource manager has three of.
func flush(tpm transport.TPM, handle tpm2.TPMHandle) {
	_, _ = tpm2.FlushContext{FlushHandle: handle}.Execute(tpm)
}
