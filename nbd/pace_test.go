package nbd

import (
	"testing"
	"time"
)

func TestComplaintsArePaced(t *testing.T) {
	var p pace
	now := time.Unix(1000, 0)
	said := 0
	for range 100 {
		if ok, _ := p.allow(now); ok {
			said++
		}
	}
	if said != maxComplaintsPerSecond {
		t.Errorf("%d of 100 in one second", said)
	}
	ok, left := p.allow(now.Add(time.Second))
	if !ok || left != 100-maxComplaintsPerSecond {
		t.Errorf("a second later: %v, %d left out", ok, left)
	}
	if _, left := p.allow(now.Add(time.Second)); left != 0 {
		t.Errorf("told twice of %d", left)
	}
}
