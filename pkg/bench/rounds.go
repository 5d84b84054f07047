package bench

// chains is how many registers are in flight in a kernel of AES rounds. Package main of xts/_asm has the same constant.
const chains = 12

// registers is a width of register that this machine can run AES rounds on.
type registers struct {
	bits int
	// rounds runs the 14 rounds of AES-256 over state, chains registers of it, n times and at least once, with the 16 bytes of key in
	// each round, and touches no memory in between. What AES does before its first round, adding a key, is left out.
	rounds func(state, key *byte, n int)
}

// widths are the tasks of all registers.
func widths() (tasks []*widthTask) {
	for _, r := range allRegisters() {
		state, key := make([]byte, chains*r.bits/8), make([]byte, 16)
		work := func(n int) {
			if n > 0 { // a kernel asks only behind its loop whether there is more to do
				r.rounds(&state[0], &key[0], n)
			}
		}
		tasks = append(tasks, &widthTask{bits: r.bits, task: task{size: len(state), run: work}})
	}
	return tasks
}
