// Package strip is the tray of a screen that has none: a strip along the top
// edge with the running qubes as coloured chips and the tray icons of other
// programs, and the menus that open below it. Panel holds the windows; Bar
// and Sheet are what is in them.
package strip

import (
	"context"
	"fmt"
	"image"
	"math"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/driver/desktop"

	"cubicle/app/bare"
	"cubicle/app/control"
	"cubicle/app/tray"
	"cubicle/app/tray/notifier"
)

// Desk places windows on the screen; they are X windows' numbers. All
// measures are pixels.
type Desk interface {
	Size() (image.Point, error)
	// Place is where a window is.
	Place(window uint32) (image.Rectangle, error)
	// MakePanel and MakeMenu tell the window manager what a window is that
	// is not shown yet.
	MakePanel(window uint32) error
	MakeMenu(window uint32) error
	// PlacePanel puts the panel along the top edge and reserves its room.
	PlacePanel(window uint32, height int) error
	PlaceMenu(window uint32, place image.Rectangle) error
	// Focus gives the keyboard to a menu and returns who had it; GiveBack
	// returns it.
	Focus(window uint32) (before uint32, err error)
	Focused(window uint32) (bool, error)
	GiveBack(window, before uint32) error
}

// Icons is the tray that the icons are in (tray/notifier.Host).
type Icons interface {
	FollowMenu(ctx context.Context, s notifier.Shown, show func([]notifier.Entry)) error
	Activate(s notifier.Shown, x, y int)
	ContextMenu(s notifier.Shown, x, y int)
}

// Panel is the strip with its menu. All methods belong to the UI's goroutine.
type Panel struct {
	// Trouble is told what went wrong; the strip lives on.
	Trouble func(error)

	app    fyne.App
	desk   Desk
	icons  Icons
	beside func(anchor image.Rectangle, size, screen image.Point) image.Point

	bar    *Bar
	window fyne.Window // nil before the first Show
	sheet  *Sheet
	menu   fyne.Window

	visible bool
	view    tray.View
	shown   []notifier.Shown

	open     string // key of the piece whose menu is open; empty: none
	stopMenu context.CancelFunc
	focused  bool   // the open menu has the keyboard
	before   uint32 // who had it
	closed   time.Time
	last     string // whose menu lost the keyboard last
}

// New makes a strip that is not shown yet; beside chooses a menu's place.
func New(a fyne.App, desk Desk, icons Icons, beside func(anchor image.Rectangle, size, screen image.Point) image.Point) *Panel {
	p := &Panel{app: a, desk: desk, icons: icons, beside: beside, bar: NewBar(), sheet: NewSheet(), Trouble: func(error) {}}
	p.bar.OnMore = func() { p.toggle(MoreKey, func() { p.show(MoreKey, p.view.Menu) }) }
	p.sheet.OnClose = p.Close
	p.sheet.OnPick = func(e notifier.Entry) {
		p.Close()
		if e.Activate != nil {
			go e.Activate()
		}
	}
	p.sheet.OnResize = p.fit
	return p
}

// make creates an undecorated window that prepare sees before the window
// manager does.
func (p *Panel) make(title string, content fyne.CanvasObject, prepare func(uint32) error) (fyne.Window, error) {
	return bare.New(p.app.Driver(), title, content, func(n uint32) { p.try(prepare(n)) })
}

func (p *Panel) try(err error) {
	if err != nil {
		p.Trouble(err)
	}
}

// SetVisible shows or hides the strip.
func (p *Panel) SetVisible(visible bool) {
	if p.visible == visible {
		return
	}
	p.visible = visible
	if !visible {
		p.Close()
		p.window.Hide()
		return
	}
	if p.window == nil {
		if err := p.create(); err != nil {
			p.visible = false
			p.Trouble(err)
			return
		}
	}
	p.window.Show()
	p.Adjust()
}

func (p *Panel) create() (err error) {
	if p.window, err = p.make("Cubicle tray", p.bar, p.desk.MakePanel); err != nil {
		return err
	}
	if err := p.widen(); err != nil {
		return err
	}
	// It ends with the program alone.
	p.window.SetCloseIntercept(func() {})
	if p.menu, err = p.make("Cubicle menu", p.sheet, p.desk.MakeMenu); err != nil {
		return err
	}
	p.menu.SetCloseIntercept(p.Close)
	// Fyne puts a window into the middle when it shows it for the first
	// time. This one is as large as a dot then.
	p.menu.Resize(fyne.NewSize(1, 1))
	p.menu.Show()
	p.menu.Hide()
	return nil
}

// Adjust fits the strip to the screen's size.
func (p *Panel) Adjust() {
	if !p.visible {
		return
	}
	// Fyne must want the same size, or it would set its own.
	p.try(p.widen())
	p.try(p.desk.PlacePanel(bare.Number(p.window), p.pixels(p.window, Height)))
}

// widen makes the strip as wide as the screen.
func (p *Panel) widen() error {
	screen, err := p.desk.Size()
	if err == nil {
		p.window.Resize(fyne.NewSize(float32(screen.X)/p.window.Canvas().Scale(), Height))
	}
	return err
}

// Unfocused tells that a menu has lost the keyboard: it closes, as a click
// elsewhere means.
func (p *Panel) Unfocused() {
	if !p.focused {
		return
	}
	// The news may be of the menu before this one.
	still, err := p.desk.Focused(bare.Number(p.menu))
	p.try(err)
	if !still {
		p.last, p.closed = p.open, time.Now()
		p.Close()
	}
}

// Left tells that the pointer is over the strip no more, which Fyne does not.
func (p *Panel) Left() { p.bar.left() }

// pixels is a measure of Fyne's in pixels.
func (p *Panel) pixels(w fyne.Window, units float32) int {
	return int(math.Ceil(float64(units * w.Canvas().Scale())))
}

// SetView shows other qubes.
func (p *Panel) SetView(v tray.View) {
	p.view = v
	p.fill()
	if p.open == MoreKey {
		p.sheet.Set(v.Menu)
		return
	}
	for _, c := range v.Chips {
		if c.Key() == p.open {
			p.sheet.Set(chipMenu(c))
			return
		}
	}
	if p.open != "" && p.stopMenu == nil {
		p.Close() // its qube has ended
	}
}

// SetIcons shows other tray icons.
func (p *Panel) SetIcons(icons []notifier.Shown) {
	p.shown = icons
	p.fill()
	if _, _, ok := p.bar.Anchor(p.open); p.open != "" && !ok {
		p.Close()
	}
}

func iconKey(s notifier.Shown) string { return "icon " + s.Address.Bus + string(s.Address.Path) }

// chipMenu is a chip's menu with a head that says what it is of.
func chipMenu(c tray.Chip) []notifier.Entry {
	return append([]notifier.Entry{
		{Key: "head", Label: c.Tip, Disabled: true},
		{Key: "head line", Separator: true},
	}, c.Menu...)
}

func (p *Panel) fill() {
	var chips, icons []Piece
	for _, c := range p.view.Chips {
		key, id := c.Key(), c.ID
		chips = append(chips, Piece{
			Key: key, Icon: control.LabelIcon(c.Shape, c.Color), Text: c.Name, Dim: !c.AtWork(),
			OnOpen: func() {
				p.toggle(key, func() {
					if c, ok := p.view.Find(id); ok {
						p.show(key, chipMenu(c))
					}
				})
			},
		})
	}
	for _, s := range p.shown {
		key := iconKey(s)
		piece := Piece{Key: key, Icon: resource(s)}
		menu := func() { p.toggle(key, func() { p.follow(key, s) }) }
		click := func() { x, y := p.below(key); p.icons.Activate(s, x, y) }
		switch {
		case s.Menu == "":
			piece.OnOpen = click
			piece.OnOther = func() { x, y := p.below(key); p.icons.ContextMenu(s, x, y) }
		case s.IsMenu:
			piece.OnOpen = menu
		default:
			piece.OnOpen, piece.OnOther = click, menu
		}
		icons = append(icons, piece)
	}
	p.bar.Fill(chips, icons)
}

// anchor is where a piece is on the screen.
func (p *Panel) anchor(key string) (image.Rectangle, error) {
	pos, size, ok := p.bar.Anchor(key)
	if !ok {
		return image.Rectangle{}, fmt.Errorf("menu: its place in the strip is gone")
	}
	strip, err := p.desk.Place(bare.Number(p.window))
	if err != nil {
		return image.Rectangle{}, err
	}
	left := strip.Min.X + p.pixels(p.window, pos.X)
	return image.Rect(left, strip.Min.Y, left+p.pixels(p.window, size.Width), strip.Max.Y), nil
}

// below is the place on the screen that a program is told for its own menu.
func (p *Panel) below(key string) (x, y int) {
	r, err := p.anchor(key)
	p.try(err)
	return r.Min.X, r.Max.Y
}

// again is how long after a menu was closed a click on its own piece means
// that the click has closed it: the menu lost the keyboard by that click.
const again = 400 * time.Millisecond

// toggle opens a menu, or leaves it closed that this click has closed.
func (p *Panel) toggle(key string, open func()) {
	if p.open == key {
		p.Close()
		return
	}
	if p.last == key && time.Since(p.closed) < again {
		p.last = ""
		return
	}
	p.Close()
	open()
}

// follow opens the menu of another program's icon.
func (p *Panel) follow(key string, s notifier.Shown) {
	ctx, cancel := context.WithCancel(context.Background())
	p.stopMenu = cancel
	p.open = key
	first := true
	go func() {
		err := p.icons.FollowMenu(ctx, s, func(entries []notifier.Entry) {
			fyne.Do(func() {
				switch {
				case ctx.Err() != nil:
				case first:
					first = false
					p.show(key, entries)
				default:
					p.sheet.Set(entries)
				}
			})
		})
		if err != nil && ctx.Err() == nil {
			fyne.Do(func() {
				if p.open == key && ctx.Err() == nil {
					p.Close()
				}
				p.Trouble(err)
			})
		}
	}()
}

// show opens the menu's window below a piece.
func (p *Panel) show(key string, entries []notifier.Entry) {
	p.open = key
	p.sheet.Begin(entries)
	place, err := p.menuPlace()
	if err != nil {
		p.Close()
		p.Trouble(err)
		return
	}
	p.resizeMenu(place)
	if window, ok := p.menu.(desktop.Window); ok {
		window.RequestPosition(place.Min.X, place.Min.Y)
	}
	p.menu.Show()
	n := bare.Number(p.menu)
	p.try(p.desk.PlaceMenu(n, place))
	before, err := p.desk.Focus(n)
	p.try(err)
	p.before, p.focused = before, err == nil
	p.menu.Canvas().Focus(p.sheet)
}

func (p *Panel) resizeMenu(place image.Rectangle) {
	scale := p.menu.Canvas().Scale()
	p.menu.Resize(fyne.NewSize(float32(place.Dx())/scale, float32(place.Dy())/scale))
}

// menuPlace is where the open menu belongs.
func (p *Panel) menuPlace() (image.Rectangle, error) {
	anchor, err := p.anchor(p.open)
	if err != nil {
		return image.Rectangle{}, err
	}
	screen, err := p.desk.Size()
	if err != nil {
		return image.Rectangle{}, err
	}
	want := p.sheet.MinSize()
	size := image.Pt(min(p.pixels(p.menu, want.Width), screen.X), min(p.pixels(p.menu, want.Height), screen.Y-anchor.Dy()))
	at := p.beside(anchor, size, screen)
	return image.Rectangle{Min: at, Max: at.Add(size)}, nil
}

// fit follows the menu's size while it is open.
func (p *Panel) fit() {
	if p.open == "" || p.menu == nil || bare.Number(p.menu) == 0 {
		return
	}
	place, err := p.menuPlace()
	if err != nil {
		p.Trouble(err)
		return
	}
	p.resizeMenu(place)
	p.try(p.desk.PlaceMenu(bare.Number(p.menu), place))
}

// Close closes the menu if one is open.
func (p *Panel) Close() {
	if p.stopMenu != nil {
		p.stopMenu()
		p.stopMenu = nil
	}
	if p.open == "" {
		return
	}
	p.open, p.focused = "", false
	if before := p.before; before != 0 {
		p.before = 0
		p.try(p.desk.GiveBack(bare.Number(p.menu), before))
	}
	p.menu.Hide()
}
