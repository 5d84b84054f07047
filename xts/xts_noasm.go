package xts

func encrypt(c *Cipher, dst, src []byte, sectorSize int, tweak uint64) {
	encryptGeneric(c, dst, src, sectorSize, tweak)
}

func decrypt(c *Cipher, dst, src []byte, sectorSize int, tweak uint64) {
	decryptGeneric(c, dst, src, sectorSize, tweak)
}
