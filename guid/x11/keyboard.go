package x11

import (
	"github.com/BurntSushi/xgb/xproto"
)

// Modifier and button bits of an event's state.
const (
	ModShift   = xproto.ModMaskShift
	ModLock    = xproto.ModMaskLock
	ModControl = xproto.ModMaskControl
	Mod1       = xproto.ModMask1
	Mod2       = xproto.ModMask2
	Mod3       = xproto.ModMask3
	Mod4       = xproto.ModMask4
	Mod5       = xproto.ModMask5
)

// Keyboard is the server's keyboard mapping at one moment. It changes with
// each MappingNotifyEvent.
type Keyboard struct {
	first   Keycode
	columns int
	syms    []Keysym
	mods    [8][]Keycode
}

// Keyboard asks for the keyboard mapping.
func (c *Conn) Keyboard() (*Keyboard, error) {
	first, last := c.setup.MinKeycode, c.setup.MaxKeycode
	keys := xproto.GetKeyboardMapping(c.x, first, byte(last-first)+1)
	mods, err := xproto.GetModifierMapping(c.x).Reply()
	if err != nil {
		return nil, wrap("modifier mapping", c.orLost(err))
	}
	r, err := keys.Reply()
	if err != nil {
		return nil, wrap("keyboard mapping", c.orLost(err))
	}
	k := &Keyboard{first: first, columns: int(r.KeysymsPerKeycode), syms: r.Keysyms}
	per := int(mods.KeycodesPerModifier)
	for i := range k.mods {
		for _, code := range mods.Keycodes[i*per : (i+1)*per] {
			if code != 0 {
				k.mods[i] = append(k.mods[i], code)
			}
		}
	}
	return k, nil
}

// Sym returns the keysym of a key in a column of the mapping (0 plain, 1 with
// Shift), 0 for none.
func (k *Keyboard) Sym(code Keycode, column int) Keysym {
	i := (int(code)-int(k.first))*k.columns + column
	if code < k.first || column < 0 || column >= k.columns || i >= len(k.syms) {
		return 0
	}
	return k.syms[i]
}

// Code returns the first key whose plain or shifted keysym is sym, 0 for none.
// Latin letters and digits have their Latin-1 value as keysym.
func (k *Keyboard) Code(sym Keysym) Keycode {
	for column := range k.columns {
		for i := column; i < len(k.syms); i += k.columns {
			if k.syms[i] == sym {
				return k.first + Keycode(i/k.columns)
			}
		}
	}
	return 0
}

// Modifier returns the keys of modifier i: 0 Shift, 1 Lock, 2 Control, 3…7
// Mod1…Mod5. It may be empty.
func (k *Keyboard) Modifier(i int) []Keycode {
	if i < 0 || i >= len(k.mods) {
		return nil
	}
	return k.mods[i]
}

// KeysDown asks which keys are down: bit k%8 of byte k/8.
func (c *Conn) KeysDown() ([32]byte, error) {
	var down [32]byte
	r, err := xproto.QueryKeymap(c.x).Reply()
	if err != nil {
		return down, wrap("query keymap", c.orLost(err))
	}
	copy(down[:], r.Keys)
	return down, nil
}

// SetAutoRepeat switches the server's own key repetition on or off.
func (c *Conn) SetAutoRepeat(on bool) {
	xproto.ChangeKeyboardControl(c.x, xproto.KbAutoRepeatMode, []uint32{bit(on)})
}
