package gui

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestRegionNeverGivesSharedSpans checks the allocator against the plainest
// model: a list of what is out.
func TestRegionNeverGivesSharedSpans(t *testing.T) {
	const size = 64 * pageSize
	rapid.Check(t, func(t *rapid.T) {
		a := newRegionAlloc(size)
		var out []span
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				n := rapid.Uint64Range(1, 20*pageSize).Draw(t, "bytes")
				s, ok := a.take(n)
				if !ok {
					return
				}
				if s.size < n || s.offset%pageSize != 0 || s.offset+s.size > size {
					t.Fatalf("%d bytes are %+v", n, s)
				}
				for _, o := range out {
					if s.offset < o.offset+o.size && o.offset < s.offset+s.size {
						t.Fatalf("%+v and %+v overlap", s, o)
					}
				}
				out = append(out, s)
			},
			"give": func(t *rapid.T) {
				if len(out) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(out)-1).Draw(t, "which")
				a.give(out[i])
				out = slices.Delete(out, i, i+1)
			},
			"": func(t *rapid.T) {
				free, given := uint64(0), uint64(0)
				for i, f := range a.free {
					free += f.size
					if i > 0 && a.free[i-1].offset+a.free[i-1].size >= f.offset {
						t.Fatalf("free spans touch: %+v", a.free)
					}
				}
				for _, o := range out {
					given += o.size
				}
				if free+given != size {
					t.Fatalf("%d free and %d given of %d", free, given, size)
				}
			},
		})
	})
}

func TestRegionRefuses(t *testing.T) {
	a := newRegionAlloc(10*pageSize + 17)
	for _, n := range []uint64{0, 10*pageSize + 1, 1 << 63, ^uint64(0)} {
		if s, ok := a.take(n); ok {
			t.Errorf("take(%d) = %+v", n, s)
		}
	}
	s, ok := a.take(10 * pageSize)
	if !ok {
		t.Fatal("all of it is refused")
	}
	a.give(s)
	for _, bad := range []span{s, {0, 0}, {9 * pageSize, 2 * pageSize}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v is taken back", bad)
				}
			}()
			a.give(bad)
		}()
	}
}

func TestRetiredSpansWaitForTheAnswer(t *testing.T) {
	old, hidden := span{0, pageSize}, span{pageSize, pageSize}
	var r retired
	r.sent = 1 // the dump of old
	if free := r.ack(); free != nil {
		t.Fatalf("free at once: %v", free)
	}
	r.sent = 2 // the dump that replaces old
	r.add(1, true, old)
	r.add(2, false, hidden) // an UNMAP after that dump: its answer proves nothing
	if free := r.ack(); !slices.Equal(free, []span{old}) {
		t.Errorf("after the second answer %v is free", free)
	}
	if free := r.ack(); free != nil {
		t.Errorf("an answer too many frees %v", free)
	}
	if !r.stuck() {
		t.Error("nothing is on its way that would free the hidden one")
	}
	r.sent = 3
	if r.stuck() {
		t.Error("an answer is on its way")
	}
	if free := r.ack(); !slices.Equal(free, []span{hidden}) {
		t.Errorf("after the third answer %v is free", free)
	}
}

func TestRetiredSpansOfADestroyedWindow(t *testing.T) {
	var r retired
	r.add(7, false, span{0, pageSize}, span{pageSize, pageSize})
	r.add(8, false, span{2 * pageSize, pageSize})
	if free := r.gone(7); len(free) != 2 {
		t.Errorf("%v is free", free)
	}
	if free := r.gone(7); free != nil {
		t.Errorf("%v is free twice", free)
	}
}
