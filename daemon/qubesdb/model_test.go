package qubesdb

import (
	"context"
	"fmt"
	"maps"
	"net"
	"testing"

	"pgregory.net/rapid"
)

// TestBothSidesBecomeEqual: whatever dom0 and the qube write and remove, also
// while they are parted and when one of them has started anew, both have the
// same in the end, and dom0's part is what dom0 said.
func TestBothSidesBecomeEqual(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		outer, inner := NewForQube(), NewInQube()
		said := map[string]string{}
		var part func()
		link := func() {
			a, b := net.Pipe()
			done := make(chan error, 2)
			go func(d *DB) { done <- d.ServeQube(context.Background(), a) }(outer)
			go func(d *DB) { done <- d.FollowDom0(context.Background(), b) }(inner)
			part = func() {
				a.Close()
				b.Close()
				<-done
				<-done
				part = nil
			}
		}
		link()
		key := rapid.Map(rapid.IntRange(0, 5), func(i int) string { return fmt.Sprintf("k%d", i) })
		value := rapid.StringMatching(`[a-z]{0,3}`)
		for range rapid.IntRange(1, 60).Draw(r, "steps") {
			switch rapid.IntRange(0, 8).Draw(r, "step") {
			case 0, 1: // dom0 says something else
				next := maps.Clone(said)
				next["/d/"+key.Draw(r, "key")] = value.Draw(r, "value")
				check(r, outer.Apply(false, Diff(said, next)))
				said = next
			case 2:
				next := maps.Clone(said)
				delete(next, "/d/"+key.Draw(r, "key"))
				check(r, outer.Apply(false, Diff(said, next)))
				said = next
			case 3, 4: // a program of the qube
				check(r, inner.Write("/q/"+key.Draw(r, "key"), value.Draw(r, "value")))
			case 5:
				c := newConn(inner, client, byteConn{})
				check(r, c.handle(Message{Type: Remove, Path: "/q/" + key.Draw(r, "key")}))
			case 6:
				if part != nil {
					part()
				} else {
					link()
				}
			case 7: // another qrexecd
				if part != nil {
					part()
				}
				outer = NewForQube()
				check(r, outer.Apply(true, Diff(nil, said)))
			case 8: // another agent
				if part != nil {
					part()
				}
				inner = NewInQube()
			}
		}
		if part == nil {
			link()
		}
		defer part()
		eventually(t, "equal", func() bool {
			// A last word of each side, so that all before has arrived.
			check(r, outer.Write("/end/dom0", ""))
			check(r, inner.Write("/end/qube", ""))
			here, there := outer.All(""), inner.All("")
			_, arrived := here["/end/qube"]
			_, came := there["/end/dom0"]
			return arrived && came && maps.Equal(here, there)
		})
		if got := outer.All("/d/"); !maps.Equal(got, said) {
			r.Fatalf("dom0 said %v, and it is %v", said, got)
		}
	})
}

func check(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}
