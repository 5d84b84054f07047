package daemon

import "testing"

func TestOneProcessorOnlyForOneDeepConnection(t *testing.T) {
	alone := 0
	for i, look := range []struct{ busy, deep, want int }{
		{0, 0, 0}, {1, 1, 1}, {1, 1, 2}, {1, 1, 2}, {2, 1, 0}, {1, 1, 1}, {1, 0, 0}, {2, 2, 0}, {1, 1, 1}, {0, 0, 0},
	} {
		if alone = nextAlone(alone, look.busy, look.deep); alone != look.want {
			t.Errorf("look %d, %+v: %d", i, look, alone)
		}
	}
}
