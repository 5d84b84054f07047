package main

// An instruction writes itself. Lists of them are put in an order that keeps the processor's units busy.
type instruction = func()

func emit(lists ...[]instruction) {
	for _, list := range lists {
		for _, write := range list {
			write()
		}
	}
}

// spread writes each side evenly among main: side instructions cost nothing as long as they don't come in crowds.
func spread(main []instruction, sides ...[]instruction) {
	done := make([]int, len(sides))
	for i, write := range main {
		write()
		for j, side := range sides {
			for ; done[j] < (i+1)*len(side)/len(main); done[j]++ {
				side[done[j]]()
			}
		}
	}
}

// merge takes from a and b in turns.
func merge(a, b []instruction) (list []instruction) {
	for len(a) > 0 && len(b) > 0 {
		list = append(list, a[0], b[0])
		a, b = a[1:], b[1:]
	}
	return append(append(list, a...), b...)
}

// alternate takes rounds of half a piece from a and from b in turns.
func alternate(a, b []instruction) (list []instruction) {
	for len(a)+len(b) > 0 {
		n, m := min(4, len(a)), min(4, len(b))
		list = append(append(list, a[:n]...), b[:m]...)
		a, b = a[n:], b[m:]
	}
	return list
}
