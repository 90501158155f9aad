package core

// Change numbers the Views between which something happened that a person or
// the policy would see: an event with a name, or another state of a qube. What
// qubes use, and how far jobs are, does not count.
func (v *View) Change() uint64 { return v.change }

// count gives a View its number, once all events of the change are known.
func (t *tx) count() {
	for _, e := range t.events {
		if e.Name != "" || e.Qube == "" && e.Job == 0 {
			t.v.change++
			return
		}
		was, now := t.before.qubes[e.Qube], t.v.qubes[e.Qube]
		if (was == nil) != (now == nil) || was != nil && (was.state != now.state || was.broken != now.broken) {
			t.v.change++
			return
		}
	}
}
