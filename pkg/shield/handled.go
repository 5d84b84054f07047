//go:build !keytest

package shield

// forTests are further signals that go on being handled: none.
const forTests set = 0
