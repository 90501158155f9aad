package gui

import (
	"cmp"
	"fmt"
	"slices"

	"cubicle/guid/wire"
)

// span is a part of the region, in bytes; both ends are at page borders.
type span struct{ offset, size uint64 }

// regionAlloc gives out spans of a region of fixed size, lowest first, so
// that few pages of the sparse memory are ever used.
type regionAlloc struct {
	size uint64
	free []span // ascending, never touching each other
}

const pageSize = 4096

func newRegionAlloc(size uint64) *regionAlloc {
	size -= size % pageSize
	return &regionAlloc{size: size, free: []span{{0, size}}}
}

// take returns a span of at least n bytes, or false when none is left.
func (a *regionAlloc) take(n uint64) (span, bool) {
	if n == 0 || n > a.size {
		return span{}, false
	}
	n = (n + pageSize - 1) / pageSize * pageSize
	for i, f := range a.free {
		if f.size < n {
			continue
		}
		if f.size == n {
			a.free = slices.Delete(a.free, i, i+1)
		} else {
			a.free[i] = span{f.offset + n, f.size - n}
		}
		return span{f.offset, n}, true
	}
	return span{}, false
}

// give takes a span back. It panics over one that was not given out: two
// windows would share pixels from then on.
func (a *regionAlloc) give(s span) {
	i, _ := slices.BinarySearchFunc(a.free, s, func(x, y span) int { return cmp.Compare(x.offset, y.offset) })
	before, after := i > 0, i < len(a.free)
	if s.size == 0 || s.offset+s.size > a.size ||
		before && a.free[i-1].offset+a.free[i-1].size > s.offset ||
		after && s.offset+s.size > a.free[i].offset {
		panic(fmt.Sprintf("region: %d bytes at %d given back twice", s.size, s.offset))
	}
	if after && s.offset+s.size == a.free[i].offset {
		s.size += a.free[i].size
		a.free = slices.Delete(a.free, i, i+1)
	}
	if before && a.free[i-1].offset+a.free[i-1].size == s.offset {
		a.free[i-1].size += s.size
		return
	}
	a.free = slices.Insert(a.free, i, s)
}

// retired holds spans that dom0 may still read. The daemon detaches a
// window's old buffer when it handles the message that replaces or ends it,
// and it answers dumps in their order (spec/gui-protocol.md §10.2): a dump's
// answer tells that everything sent before that dump has been handled too. So
// does the answer to DESTROY for what was sent about that window.
type retired struct {
	sent  uint64 // dumps sent
	acked uint64 // dumps answered
	queue []retiree
}

type retiree struct {
	id    wire.WindowID
	after uint64 // free when that many dumps are answered
	span  span
}

// add retires spans of a window that the message sent just now detached; dump
// tells whether that message was a WINDOW_DUMP (counted already) or another.
func (r *retired) add(id wire.WindowID, dump bool, spans ...span) {
	after := r.sent
	if !dump {
		after++
	}
	for _, s := range spans {
		r.queue = append(r.queue, retiree{id, after, s})
	}
}

// ack notes a dump's answer and returns the spans that are free now.
func (r *retired) ack() []span {
	if r.acked < r.sent {
		r.acked++
	}
	return r.release(func(e retiree) bool { return e.after <= r.acked })
}

// gone notes that the daemon has forgotten a window.
func (r *retired) gone(id wire.WindowID) []span {
	return r.release(func(e retiree) bool { return e.id == id })
}

// stuck tells that spans wait for an answer to something that was not sent.
func (r *retired) stuck() bool { return len(r.queue) > 0 && r.acked == r.sent }

func (r *retired) release(free func(retiree) bool) []span {
	var spans []span
	r.queue = slices.DeleteFunc(r.queue, func(e retiree) bool {
		if free(e) {
			spans = append(spans, e.span)
			return true
		}
		return false
	})
	return spans
}
