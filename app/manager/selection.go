package manager

import "cubicle/app/dom0"

// selection is which qubes are selected. It knows them by ID, so that a
// qube stays selected when the table is sorted anew.
type selection struct {
	ids    []dom0.QubeID // as shown: the filter's view; empty for a heading
	chosen map[dom0.QubeID]bool
	cursor dom0.QubeID // where the keyboard is
	anchor dom0.QubeID // where a range began
}

// show sets what the table shows; what is no longer shown is no longer
// selected, so that no action hits what nobody sees.
func (s *selection) show(rows []row) {
	last := s.index(s.cursor)
	s.ids = s.ids[:0]
	kept := map[dom0.QubeID]bool{}
	for i := range rows {
		id := rows[i].qube.ID
		s.ids = append(s.ids, id)
		if s.chosen[id] {
			kept[id] = true
		}
	}
	s.chosen = kept
	if s.index(s.cursor) < 0 {
		s.cursor = ""
		// The place of a removed qube is taken by the next one.
		if last >= 0 && len(s.ids) > 0 {
			s.cursor = s.ids[s.near(min(last, len(s.ids)-1), 1)]
			if len(s.chosen) == 0 && s.cursor != "" {
				s.chosen[s.cursor] = true
			}
		}
		s.anchor = s.cursor
	}
}

func (s *selection) index(id dom0.QubeID) int {
	if id == "" {
		return -1
	}
	for i, other := range s.ids {
		if other == id {
			return i
		}
	}
	return -1
}

// pick selects row i alone, adds or takes it away (toggle), or selects the
// range from the anchor to it (extend).
func (s *selection) pick(i int, toggle, extend bool) {
	if i < 0 || i >= len(s.ids) || s.ids[i] == "" {
		return
	}
	id := s.ids[i]
	switch {
	case extend && s.index(s.anchor) >= 0:
		from := s.index(s.anchor)
		s.chosen = map[dom0.QubeID]bool{}
		for k := min(from, i); k <= max(from, i); k++ {
			if s.ids[k] != "" {
				s.chosen[s.ids[k]] = true
			}
		}
	case toggle:
		if s.chosen[id] {
			delete(s.chosen, id)
		} else {
			s.chosen[id] = true
		}
		s.anchor = id
	default:
		s.chosen = map[dom0.QubeID]bool{id: true}
		s.anchor = id
	}
	s.cursor = id
}

// move takes the cursor delta rows down, extending the selection or not.
func (s *selection) move(delta int, extend bool) {
	if len(s.ids) == 0 {
		return
	}
	i := s.index(s.cursor)
	if i < 0 {
		i = -1
		if delta < 0 {
			i = len(s.ids)
		}
	}
	s.pick(s.near(min(max(i+delta, 0), len(s.ids)-1), delta), false, extend)
}

// near is i, or where a heading stands the next qube in the direction of by,
// else the next one in the other.
func (s *selection) near(i, by int) int {
	step := 1
	if by < 0 {
		step = -1
	}
	for _, to := range []int{step, -step} {
		for k := i; k >= 0 && k < len(s.ids); k += to {
			if s.ids[k] != "" {
				return k
			}
		}
	}
	return i
}

// firstOr is the row of id, or the first qube's, or -1.
func (s *selection) firstOr(id dom0.QubeID) int {
	if i := s.index(id); i >= 0 {
		return i
	}
	for i, id := range s.ids {
		if id != "" {
			return i
		}
	}
	return -1
}

func (s *selection) all() {
	for _, id := range s.ids {
		if id != "" {
			s.chosen[id] = true
		}
	}
}

func (s *selection) clear() { s.chosen = map[dom0.QubeID]bool{} }
