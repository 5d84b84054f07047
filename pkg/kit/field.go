package kit

// The field is GF(256) of AES (FIPS 197, section 4): polynomials over GF(2) modulo x^8 + x^4 + x^3 + x + 1.

// mul takes the same steps whatever it multiplies.
func mul(a, b byte) (product byte) {
	for range 8 {
		product ^= a & -(b & 1)
		a = a<<1 ^ 0x1b&-(a>>7)
		b >>= 1
	}
	return product
}

// inverse is a^254, and 0 of 0.
func inverse(a byte) byte {
	power := a
	for range 6 {
		power = mul(mul(power, power), a) // a^3, a^7, … a^127
	}
	return mul(power, power)
}

// evaluate gives the values at x of as many polynomials as the secret has bytes: their constants are the secret, and the other
// coefficients lie in random, those of x first.
func evaluate(at, secret, random []byte, x byte) {
	for b := range secret {
		value := byte(0)
		for c := len(random) - len(secret) + b; c >= 0; c -= len(secret) {
			value = mul(value, x) ^ random[c]
		}
		at[b] = mul(value, x) ^ secret[b]
	}
}
