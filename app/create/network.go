package create

import (
	"slices"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	fynetheme "fyne.io/fyne/v2/theme"

	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/words"
)

// Network says where a new qube has its network from: as the system's
// settings say unless Chosen, else from that qube, or from none.
type Network struct {
	Chosen bool
	From   dom0.Name // empty: offline
}

// network is the page's choice of it.
type network struct {
	box    *fyne.Container
	choice *control.Select
	usual  string // what the daemon would take
	known  bool   // and whether it told
	values []Network
}

func newNetwork(p *Page, wish Network) *network {
	n := &network{choice: control.NewSelect(nil, nil)}
	n.choice.OnEscape = func() { p.OnCancel() }
	n.box = container.NewStack(n.choice, control.NewGround("", fynetheme.ColorNameInputBorder, 6))
	n.offerAll(p.snapshot, wish)
	return n
}

// update offers the qubes that give network now.
func (n *network) update(s *dom0.Snapshot) { n.offerAll(s, n.wish()) }

// offer learns what the daemon would take.
func (n *network) offer(rows []dom0.Property) {
	i := slices.IndexFunc(rows, func(r dom0.Property) bool { return r.Name == "netvm" })
	if i < 0 {
		return
	}
	n.usual, n.known = rows[i].Value, true
	texts := slices.Clone(n.choice.Options)
	first := n.choice.Selected == texts[0]
	texts[0] = n.usualText()
	n.choice.SetOptions(texts)
	if first {
		n.choice.SetSelected(texts[0])
	}
}

func (n *network) usualText() string {
	switch {
	case !n.known:
		return words.T("Default")
	case n.usual == "":
		return words.T("Default (%s)", words.T("offline"))
	}
	return words.T("Default (%s)", n.usual)
}

func (n *network) offerAll(s *dom0.Snapshot, chosen Network) {
	texts := []string{n.usualText(), words.T("offline")}
	n.values = []Network{{}, {Chosen: true}}
	for i := range s.Qubes {
		if q := &s.Qubes[i]; q.ProvidesNetwork && q.Class != dom0.TemplateVM {
			texts = append(texts, string(q.Name))
			n.values = append(n.values, Network{Chosen: true, From: q.Name})
		}
	}
	if !slices.Equal(texts, n.choice.Options) {
		n.choice.SetOptions(texts)
	}
	pick := texts[max(0, slices.Index(n.values, chosen))]
	if n.choice.Selected != pick {
		n.choice.SetSelected(pick)
	}
}

func (n *network) wish() Network {
	if i := slices.Index(n.choice.Options, n.choice.Selected); i >= 0 && i < len(n.values) {
		return n.values[i]
	}
	return Network{}
}
