package ask

import (
	"slices"
	"strings"

	"cubicle/app/ask/agent"
	"cubicle/app/dom0"
	"cubicle/app/words"
	"cubicle/theme/label"
)

// party is a qube as a question shows it.
type party struct {
	answer string // as dom0 knows it: a name, or "@dispvm:" and a name
	title  string
	note   string // what choosing it starts, in a word or two
	label  string // the label's name, or empty
	shape  label.Shape
	color  uint32 // 0x00RRGGBB
}

// gray is the colour of what has none.
const gray = 0x888888

// partyOf describes a target or the source: by what the daemon says of it,
// else by the icon that the question names.
func partyOf(answer string, r agent.Request, s *dom0.Snapshot) party {
	p := party{answer: answer, title: answer, color: gray}
	base, disposable := strings.CutPrefix(answer, agent.DispVM)
	p.icon(r.Icons[answer])
	if q, ok := s.ByName(dom0.Name(base)); ok {
		p.shape, p.color, p.label = label.ShapeOf(q.Class), q.Label.Color, q.Label.Name
		if q.Class != dom0.AdminVM && q.State != dom0.Running {
			p.note = words.State(q.State)
		}
	}
	if answer == "dom0" {
		p.shape = label.Shield
	}
	if disposable {
		p.title = words.T("Disposable VM (%s)", base)
		p.shape = label.Dashed
		p.note = words.T("new")
	}
	return p
}

// icon takes shape and colour from a name of upstream's such as "appvm-red"
// or "dispvm-gray" (spec/admin-api.md, property icon).
func (p *party) icon(name string) {
	kind, color, ok := strings.Cut(name, "-")
	if !ok {
		return
	}
	switch kind {
	case "templatevm":
		p.shape = label.Ring
	case "dispvm":
		p.shape = label.Dashed
	case "adminvm":
		p.shape = label.Shield
	}
	if l, err := dom0.ParseLabel(color); err == nil {
		p.label, p.color = l.Name, l.Color
	}
}

// parties are the targets in the order of the list: qubes by name, then
// disposables, and dom0 last.
func parties(r agent.Request, s *dom0.Snapshot) []party {
	out := make([]party, 0, len(r.Targets))
	for _, t := range r.Targets {
		out = append(out, partyOf(t, r, s))
	}
	rank := func(p party) int {
		switch {
		case p.answer == "dom0":
			return 2
		case strings.HasPrefix(p.answer, agent.DispVM):
			return 1
		}
		return 0
	}
	slices.SortFunc(out, func(a, b party) int {
		if by := rank(a) - rank(b); by != 0 {
			return by
		}
		if by := strings.Compare(strings.ToLower(a.answer), strings.ToLower(b.answer)); by != 0 {
			return by
		}
		return strings.Compare(a.answer, b.answer)
	})
	return out
}

// filter are the parties that every word of the query is found in, or that
// have the label which it names.
func filter(all []party, query string) []party {
	wanted := strings.Fields(strings.ToLower(query))
	var out []party
	for _, p := range all {
		if !slices.ContainsFunc(wanted, func(w string) bool { return !p.matches(w) }) {
			out = append(out, p)
		}
	}
	return out
}

func (p party) matches(word string) bool {
	return strings.Contains(strings.ToLower(p.title), word) || p.label != "" &&
		(strings.HasPrefix(p.label, word) || strings.HasPrefix(strings.ToLower(words.Label(p.label)), word))
}

// meant is the one that a query can only mean: the only one left, or the one
// of exactly that name.
func meant(left []party, query string) (string, bool) {
	query = strings.TrimSpace(query)
	if query == "" {
		return "", false
	}
	if len(left) == 1 {
		return left[0].answer, true
	}
	for _, p := range left {
		if strings.EqualFold(p.answer, query) {
			return p.answer, true
		}
	}
	return "", false
}
