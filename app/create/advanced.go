package create

import (
	"image/color"
	"slices"
	"strconv"
	"strings"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/canvas"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/words"
)

// Advanced is what the folded part of the page was filled in with, as texts;
// empty stands for the default.
type Advanced struct {
	Memory    string // MiB
	VCPUs     string
	Private   string // GB
	User      string
	Engine    string
	Autostart bool
}

// Properties are the rows of the property table that differ from their
// defaults, and the private volume's bytes, 0 for the default.
func (a Advanced) Properties() (rows map[string]string, private uint64) {
	rows = map[string]string{}
	for name, value := range map[string]string{"memory": a.Memory, "vcpus": a.VCPUs, "default_user": a.User, "engine": a.Engine} {
		if value != "" {
			rows[name] = value
		}
	}
	if a.Autostart {
		rows["autostart"] = "True"
	}
	private, _ = ParseGB(a.Private)
	return rows, private
}

// giga is a GB as disks have it, grain what a volume's size is a multiple of;
// maxGiga is the largest size that can be chosen.
const (
	giga    = 1e9
	grain   = 1 << 20
	maxGiga = 16 << 10
)

// ParseGB reads a size in GB, with a point or a comma; it is rounded up to
// whole MiB.
func ParseGB(text string) (bytes uint64, ok bool) {
	value, err := strconv.ParseFloat(strings.Replace(strings.TrimSpace(text), ",", ".", 1), 64)
	if err != nil || !(value > 0) || value > maxGiga {
		return 0, false
	}
	return (uint64(value*giga) + grain - 1) / grain * grain, true
}

// advanced is the folded part of the page. What it offers and what it finds
// wrong comes from the daemon's property table.
type advanced struct {
	page   *Page
	toggle *control.Button
	box    *fyne.Container // hidden while folded

	memory, vcpus, private, user *control.Entry
	engine                       *control.Select
	autostart                    *control.Check
	faults                       map[string]string // by property, as the daemon says
	fault                        *canvas.Text
}

// privateSize is the name that the private volume's size has among faults.
const privateSize = "private"

// sameAsDefault is the first choice of engines.
func sameAsDefault(name string) string {
	if name == "" {
		return words.T("Default")
	}
	return words.T("Default (%s)", name)
}

func newAdvanced(p *Page, wish Advanced) *advanced {
	a := &advanced{page: p, faults: map[string]string{}, fault: canvas.NewText("", color.Transparent)}
	leave := func() { p.OnCancel() }
	field := func(property, text string) *control.Entry {
		e := control.NewEntry("")
		e.SetText(text)
		e.OnEscape = leave
		e.OnChanged = func(string) { a.check(property, strings.TrimSpace(e.Text)) }
		e.OnSubmitted = func(string) { p.submit() }
		return e
	}
	a.memory = field("memory", wish.Memory)
	a.vcpus = field("vcpus", wish.VCPUs)
	a.private = field(privateSize, wish.Private)
	a.user = field("default_user", wish.User)
	a.engine = control.NewSelect(nil, func(string) { p.check() })
	a.engine.OnEscape = leave
	a.autostart = control.NewCheck(words.T("Autostart"), nil)
	a.autostart.OnEscape = leave
	a.autostart.Checked = wish.Autostart
	a.setEngines(p.snapshot, wish.Engine)

	a.toggle = control.NewButton(words.T("Advanced"), control.Icon("right"), func() { a.fold(a.box.Visible()) })
	a.toggle.Importance = widget.LowImportance
	a.toggle.OnEscape = leave
	framed := container.NewStack(a.engine, control.NewGround("", fynetheme.ColorNameInputBorder, 6))
	a.box = container.New(layout.NewCustomPaddedVBoxLayout(4),
		container.New(layout.NewGridLayoutWithColumns(3),
			named(words.T("Memory (MB)"), a.memory), named(words.T("vCPUs"), a.vcpus), named(words.T("Files (GB)"), a.private)),
		container.New(layout.NewGridLayoutWithColumns(2),
			named(words.T("User"), a.user), named(words.T("Isolation"), framed)),
		a.autostart, a.fault)
	a.box.Hide()
	if wish != (Advanced{}) {
		a.fold(false)
	}
	return a
}

// named is a field below its name.
func named(name string, field fyne.CanvasObject) fyne.CanvasObject {
	paint := control.NewPainter()
	top := canvas.NewText(name, paint.Ink(fynetheme.ColorNameForeground))
	top.TextSize = paint.Size(fynetheme.SizeNameText) - 1
	return container.New(layout.NewCustomPaddedVBoxLayout(2), top, field)
}

func (a *advanced) fold(folded bool) {
	icon := "down"
	if folded {
		icon = "right"
	}
	a.toggle.SetIcon(control.Icon(icon))
	control.Show(a.box, !folded)
	a.page.grown()
}

// setEngines offers the engines of the machine, each with what it isolates by.
func (a *advanced) setEngines(s *dom0.Snapshot, chosen string) {
	options := []string{sameAsDefault(isolationOf(s, s.DefaultEngine))}
	pick := options[0]
	for _, e := range s.Engines {
		text := engineText(e)
		options = append(options, text)
		if e.Name == chosen {
			pick = text
		}
	}
	if !slices.Equal(options, a.engine.Options) {
		a.engine.SetOptions(options)
		a.engine.SetSelected(pick)
	}
}

func engineText(e dom0.Engine) string { return e.Isolation + " (" + e.Name + ")" }

func isolationOf(s *dom0.Snapshot, engine string) string {
	for _, e := range s.Engines {
		if e.Name == engine {
			return e.Isolation
		}
	}
	return ""
}

// wish reads the fields.
func (a *advanced) wish() Advanced {
	w := Advanced{
		Memory: strings.TrimSpace(a.memory.Text), VCPUs: strings.TrimSpace(a.vcpus.Text),
		Private: strings.TrimSpace(a.private.Text), User: strings.TrimSpace(a.user.Text), Autostart: a.autostart.Checked,
	}
	for _, e := range a.page.snapshot.Engines {
		if a.engine.Selected == engineText(e) {
			w.Engine = e.Name
		}
	}
	return w
}

// check has the daemon look at one field; the answer comes to setFault.
func (a *advanced) check(property, text string) {
	switch {
	case text == "":
		a.setFault(property, "")
	case property == privateSize:
		why := ""
		if _, ok := ParseGB(text); !ok {
			why = words.T("a size in GB is needed, such as 8")
		}
		a.setFault(property, why)
	case a.page.OnCheck != nil:
		a.page.OnCheck(a.page.kind.Class(), property, text, func(why string) {
			if a.text(property) == text { // an older answer is no news
				a.setFault(property, strings.TrimPrefix(why, "Property "+property+": "))
			}
		})
	}
}

func (a *advanced) text(property string) string {
	w := a.wish()
	switch property {
	case "memory":
		return w.Memory
	case "vcpus":
		return w.VCPUs
	case "default_user":
		return w.User
	}
	return ""
}

func (a *advanced) setFault(property, why string) {
	if why == "" {
		delete(a.faults, property)
	} else {
		a.faults[property] = why
	}
	a.page.check()
}

// draw shows what is wrong: the first fault, with the field's name.
func (a *advanced) draw(p control.Painter) {
	text := ""
	for _, f := range []struct{ property, name string }{
		{"memory", words.T("Memory (MB)")}, {"vcpus", words.T("vCPUs")}, {privateSize, words.T("Files (GB)")}, {"default_user", words.T("User")},
	} {
		if why := a.faults[f.property]; why != "" && text == "" {
			text = f.name + ": " + why
		}
	}
	control.SetText(a.fault, text, p.Ink(fynetheme.ColorNameError), p.Size(fynetheme.SizeNameCaptionText)+1)
}

// offer shows the defaults of a new qube.
func (a *advanced) offer(rows []dom0.Property) {
	for _, row := range rows {
		var e *control.Entry
		switch row.Name {
		case "memory":
			e = a.memory
		case "vcpus":
			e = a.vcpus
		case "default_user":
			e = a.user
		default:
			continue
		}
		if e.PlaceHolder != row.Value {
			e.SetPlaceHolder(row.Value)
		}
	}
	if a.private.PlaceHolder == "" {
		a.private.SetPlaceHolder("2.1") // core's 2 GiB
	}
}
