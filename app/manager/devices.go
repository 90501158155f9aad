package manager

import (
	"context"
	"maps"
	"slices"
	"strings"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/layout"
	fynetheme "fyne.io/fyne/v2/theme"
	"fyne.io/fyne/v2/widget"

	"cubicle/app/control"
	"cubicle/app/dom0"
	"cubicle/app/words"
	"cubicle/theme"
)

// devices is the page of what a qube shall have of the computer's devices,
// and of what its engine cannot give it.
type devices struct {
	pane  *host
	box   fyne.CanvasObject
	list  *fyne.Container
	none  *widget.Label
	add   *control.Button
	lacks map[dom0.DeviceClass]string
	shown []dom0.Device // those assigned to the qube, as they are drawn
	state dom0.State    // and its state then
}

func newDevices(p *host) *devices {
	d := &devices{pane: p, list: container.NewVBox(), none: widget.NewLabel("")}
	d.none.Wrapping = fyne.TextWrapWord
	d.add = control.NewButton(words.T("Add a device …"), control.Icon("plus"), d.choose)
	d.add.OnEscape = p.escape
	d.box = control.Border(nil, container.NewVBox(container.NewHBox(d.add)), nil, nil,
		container.NewVScroll(container.New(layout.NewCustomPaddedLayout(0, 0, 0, scrollBar), d.list)))
	return d
}

func (d *devices) title() string           { return words.T("Devices") }
func (d *devices) body() fyne.CanvasObject { return d.box }
func (d *devices) leave()                  {}

func (d *devices) show(q dom0.Qube, fresh bool) {
	var lacks map[dom0.DeviceClass]string
	d.pane.ask(func(ctx context.Context) (err error) {
		lacks, err = d.pane.manager.client.DeviceLacks(ctx, q.ID)
		return err
	}, func() {
		same := maps.Equal(lacks, d.lacks)
		d.lacks = lacks
		d.draw(fresh || !same)
	})
}

// assigned are the devices that the qube shall have.
func (d *devices) assigned() []dom0.Device {
	var list []dom0.Device
	for _, one := range d.pane.manager.state.Devices {
		if _, ok := one.To(d.pane.subject.Name); ok {
			list = append(list, one)
		}
	}
	return list
}

// free are the devices that the qube could have besides.
func (d *devices) free() []dom0.Device {
	var list []dom0.Device
	for _, one := range d.pane.manager.state.Devices {
		_, has := one.To(d.pane.subject.Name)
		own := one.Backend == string(d.pane.subject.Name)
		if one.Offered && !has && !own {
			list = append(list, one)
		}
	}
	return list
}

func (d *devices) draw(anew bool) {
	list, q := d.assigned(), &d.pane.subject
	d.add.Able(len(d.free()) > 0)
	if !anew && slices.EqualFunc(list, d.shown, dom0.Device.Equal) && d.state == q.State {
		return
	}
	d.shown, d.state = slices.Clone(list), q.State
	d.list.RemoveAll()
	if len(list) == 0 {
		text := words.T("No device is assigned to %s.", q.Name)
		if len(d.free()) == 0 {
			text += " " + words.T("Neither dom0 nor a running qube offers one now.")
		}
		setLabel(d.none, text)
		d.list.Add(d.none)
		if why := d.reasons(); why != "" {
			d.list.Add(remark("info", why))
		}
	}
	for _, one := range list {
		d.list.Add(d.card(one))
	}
	d.box.Refresh() // the scroller gives the list its room
}

// reasons are what the engine cannot do, a line for each reason.
func (d *devices) reasons() string {
	var order []string
	classes := map[string][]string{}
	for _, class := range []dom0.DeviceClass{dom0.Block, dom0.USB, dom0.Webcam, dom0.Mic, dom0.PCI} {
		why := d.lacks[class]
		if why == "" {
			continue
		}
		if classes[why] == nil {
			order = append(order, why)
		}
		classes[why] = append(classes[why], deviceClass(class))
	}
	if len(order) == 0 {
		return ""
	}
	lines := []string{words.T("What the isolation by %s cannot give to a qube:", d.pane.subject.Isolation)}
	for _, why := range order {
		lines = append(lines, words.T("%s: %s.", strings.Join(classes[why], ", "), words.Known(why)))
	}
	return strings.Join(lines, "\n")
}

// remark is a quiet paragraph with its sign.
func remark(icon, text string) fyne.CanvasObject {
	label := widget.NewLabel(text)
	label.Wrapping = fyne.TextWrapWord
	sign := widget.NewIcon(control.ColorIcon(icon, theme.Muted))
	return control.Border(nil, nil, container.New(layout.NewCustomPaddedLayout(10, 0, 4, 0), container.NewVBox(sign)), nil, label)
}

// card is one assigned device.
func (d *devices) card(one dom0.Device) fyne.CanvasObject {
	own, _ := one.To(d.pane.subject.Name)
	name := widget.NewLabel(deviceName(one))
	name.TextStyle.Bold = true
	name.Truncation = fyne.TextTruncateEllipsis
	facts := widget.NewLabel(d.facts(one))
	facts.Truncation = fyne.TextTruncateEllipsis
	modes := deviceModes(one.Class)
	texts := make([]string, len(modes))
	now := ""
	for i, mode := range modes {
		texts[i] = deviceMode(mode)
		if mode == own.Mode {
			now = texts[i]
		}
	}
	choice := control.NewSelect(texts, nil)
	choice.SetSelected(now)
	choice.OnEscape = d.pane.escape
	choice.OnChanged = func(text string) {
		if i := slices.Index(texts, text); i >= 0 && modes[i] != own.Mode {
			d.tell("assign", func(ctx context.Context, id dom0.QubeID) error {
				return d.pane.manager.client.SetDeviceMode(ctx, id, one.DeviceRef, modes[i])
			})
		}
	}
	drop := control.NewButton(words.T("Take away"), nil, func() {
		d.tell("unassign", func(ctx context.Context, id dom0.QubeID) error {
			return d.pane.manager.client.UnassignDevice(ctx, id, one.DeviceRef)
		})
	})
	drop.OnEscape = d.pane.escape
	when := container.NewStack(choice, control.NewGround("", fynetheme.ColorNameInputBorder, 6))
	lines := container.New(layout.NewCustomPaddedVBoxLayout(4), container.New(layout.NewCustomPaddedVBoxLayout(-10), name, facts))
	text := fyne.MeasureText(now, d.pane.manager.textSize(), fyne.TextStyle{}).Width
	if text+selectSign+drop.MinSize().Width > d.pane.room()-scrollBar {
		lines.Add(when)
		lines.Add(container.NewHBox(layout.NewSpacer(), drop))
	} else {
		lines.Add(control.Border(nil, nil, nil, drop, when))
	}
	switch why := words.Known(d.lacks[one.Class]); {
	case why == "":
	case own.Mode == dom0.Required:
		warning := widget.NewLabel(words.T("%s cannot start while it requires this device: %s.", d.pane.subject.Name, why))
		warning.Wrapping = fyne.TextWrapWord
		warning.Importance = widget.DangerImportance
		lines.Add(warning)
	default:
		lines.Add(remark("info", words.T("It cannot be attached by %s: %s.", d.pane.subject.Isolation, why)))
	}
	return container.NewVBox(lines, widget.NewSeparator())
}

// selectSign is what a choice takes of its width beside the text.
const selectSign = 56

// facts are what is known of a device besides its name.
func (d *devices) facts(one dom0.Device) string {
	facts := []string{deviceClass(one.Class), devicePlace(one)}
	if one.Size > 0 {
		facts = append(facts, size(one.Size))
	}
	if one.ReadOnly {
		facts = append(facts, words.T("read-only"))
	}
	switch {
	case one.Attached != "":
		facts = append(facts, words.T("attached to %s", one.Attached))
	case !one.Offered:
		facts = append(facts, words.T("not there now"))
	}
	return strings.Join(facts, " · ")
}

// deviceName is what a device says it is, or where it is.
func deviceName(d dom0.Device) string {
	if d.Title != "" {
		return string(d.Title)
	}
	if d.Port == dom0.AnyDevice {
		return words.T("Any device of this kind")
	}
	return d.Port
}

// devicePlace is where a device is plugged in.
func devicePlace(d dom0.Device) string {
	backend := d.Backend
	if backend == dom0.AnyDevice {
		backend = words.T("any qube")
	}
	if d.Port == dom0.AnyDevice {
		return backend
	}
	return backend + ":" + d.Port
}

// deviceClass is a class in people's words.
func deviceClass(class dom0.DeviceClass) string {
	switch class {
	case dom0.Block:
		return words.T("Disks")
	case dom0.Mic:
		return words.T("Microphone")
	case dom0.PCI:
		return words.T("PCI")
	case dom0.USB:
		return words.T("USB")
	case dom0.Webcam:
		return words.T("Webcams")
	}
	return string(class)
}

// deviceModes are those that an assignment of the class can have
// (spec/admin-api.md §6.3).
func deviceModes(class dom0.DeviceClass) []dom0.DeviceMode {
	if class == dom0.PCI {
		return []dom0.DeviceMode{dom0.Required}
	}
	return []dom0.DeviceMode{dom0.AskToAttach, dom0.AutoAttach, dom0.Required}
}

// deviceMode is when an assigned device is attached, in people's words.
func deviceMode(mode dom0.DeviceMode) string {
	switch mode {
	case dom0.AskToAttach:
		return words.T("Ask each time it is there")
	case dom0.AutoAttach:
		return words.T("Attach it whenever it is there")
	case dom0.Required:
		return words.T("Do not start without it")
	}
	return string(mode)
}

// choose asks which device the qube shall have, and when.
func (d *devices) choose() {
	list, m := d.free(), d.pane.manager
	if len(list) == 0 {
		return
	}
	texts := make([]string, len(list))
	for i, one := range list {
		texts[i] = deviceName(one) + " (" + devicePlace(one) + ")"
	}
	var modes []dom0.DeviceMode
	when := control.NewSelect(nil, nil)
	when.OnEscape = m.closeSheet
	offer := func(text string) {
		i := slices.Index(texts, text)
		if i < 0 || slices.Equal(modes, deviceModes(list[i].Class)) {
			return
		}
		modes = deviceModes(list[i].Class)
		offered := make([]string, len(modes))
		for i, mode := range modes {
			offered[i] = deviceMode(mode)
		}
		when.SetOptions(offered)
		when.SetSelected(offered[0])
	}
	offer(texts[0])
	m.askText(prompt{
		title:   words.T("Assign a device to %s", d.pane.subject.Name),
		text:    texts[0],
		options: texts,
		do:      words.T("Assign"),
		check: func(text string) string {
			offer(text)
			return ""
		},
		extra: container.NewStack(when, control.NewGround("", fynetheme.ColorNameInputBorder, 6)),
		try: func(text string, done func(error)) {
			one, mode := list[slices.Index(texts, text)], modes[slices.Index(when.Options, when.Selected)]
			id := d.pane.subject.ID
			m.inquire(func(ctx context.Context) error { return m.client.AssignDevice(ctx, id, one.DeviceRef, mode) }, func(err error) {
				done(err)
				if err == nil {
					d.pane.again(id)
				}
			})
		},
	})
}

// tell changes an assignment and shows the page as it is then.
func (d *devices) tell(kind string, change func(context.Context, dom0.QubeID) error) {
	q, m := d.pane.subject, d.pane.manager
	m.inquire(func(ctx context.Context) error { return change(ctx, q.ID) }, func(err error) {
		if err != nil {
			m.failed(kind, q.Name, err, nil)
			d.shown = nil // a choice that was refused is drawn as it was
		}
		d.pane.again(q.ID)
	})
}
