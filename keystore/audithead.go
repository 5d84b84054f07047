package keystore

import "nbdcrypt/pkg/secret"

// AuditMAC authenticates the head of the audit log: HMAC-SHA256 under a key of its own. It needs the root key to have been open once, and
// works while it is locked.
func (r *Root) AuditMAC(message []byte) (mac []byte, err error) {
	m, err := r.sealing()
	if err != nil {
		return nil, err
	}
	key, err := secret.Work(shaSize, deriving)
	if err != nil {
		return nil, err
	}
	defer key.Destroy()
	mac = make([]byte, shaSize)
	secret.Do(func() {
		err = withHash(func(h *hkdfState) error {
			if err := h.derive(key.Bytes(), m, newIdentity("nbdcrypt/v1/audit-head", r.Store)); err != nil {
				return err
			}
			h.mac(mac, key.Bytes(), message, nil)
			return nil
		})
	})
	return mac, err
}
