package x11

import (
	"encoding/binary"
	"fmt"

	"github.com/BurntSushi/xgb/xproto"
)

// Predefined atoms.
const (
	AtomNone     Atom = 0
	AtomAny      Atom = xproto.GetPropertyTypeAny
	AtomAtom     Atom = xproto.AtomAtom
	AtomCardinal Atom = xproto.AtomCardinal
	AtomString   Atom = xproto.AtomString
	AtomWindow   Atom = xproto.AtomWindow

	AtomWMName          Atom = xproto.AtomWmName
	AtomWMIconName      Atom = xproto.AtomWmIconName
	AtomWMClass         Atom = xproto.AtomWmClass
	AtomWMHints         Atom = xproto.AtomWmHints
	AtomWMNormalHints   Atom = xproto.AtomWmNormalHints
	AtomWMSizeHints     Atom = xproto.AtomWmSizeHints
	AtomWMTransientFor  Atom = xproto.AtomWmTransientFor
	AtomWMClientMachine Atom = xproto.AtomWmClientMachine
)

// Atom returns the atom of that name; a round trip for a new one.
func (c *Conn) Atom(name string) (Atom, error) {
	atoms, err := c.Atoms(name)
	if err != nil {
		return 0, err
	}
	return atoms[name], nil
}

// Atoms returns the atoms of those names in one round trip for all new ones.
func (c *Conn) Atoms(names ...string) (map[string]Atom, error) {
	out := make(map[string]Atom, len(names))
	cookies := make(map[string]xproto.InternAtomCookie)
	c.mu.Lock()
	for _, name := range names {
		if atom, ok := c.atoms[name]; ok {
			out[name] = atom
		}
	}
	c.mu.Unlock()
	for _, name := range names {
		if _, ok := out[name]; !ok {
			cookies[name] = xproto.InternAtom(c.x, false, uint16(len(name)), name)
		}
	}
	for name, cookie := range cookies {
		reply, err := cookie.Reply()
		if err != nil {
			return nil, wrap("intern atom "+name, c.orLost(err))
		}
		out[name] = reply.Atom
		c.learnAtom(name, reply.Atom)
	}
	return out, nil
}

// AtomName returns the name of an atom; a round trip for a new one.
func (c *Conn) AtomName(atom Atom) (string, error) {
	c.mu.Lock()
	name, ok := c.names[atom]
	c.mu.Unlock()
	if ok {
		return name, nil
	}
	reply, err := xproto.GetAtomName(c.x, atom).Reply()
	if err != nil {
		return "", wrap(fmt.Sprintf("name of atom %d", atom), c.orLost(err))
	}
	c.learnAtom(reply.Name, atom)
	return reply.Name, nil
}

func (c *Conn) learnAtom(name string, atom Atom) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.atoms[name] = atom
	c.names[atom] = name
}

// Property is a property's value as the server has it.
type Property struct {
	Type   Atom // AtomNone: there is no such property
	Format byte // 8, 16 or 32 bits per item
	Data   []byte
	More   uint32 // bytes that were not fetched
}

// GetProperty fetches at most limit bytes of a property of type typ or
// AtomAny. Of another type, Data is empty.
func (c *Conn) GetProperty(w Window, prop, typ Atom, limit uint32) (Property, error) {
	reply, err := xproto.GetProperty(c.x, false, w, prop, typ, 0, (limit+3)/4).Reply()
	if err != nil {
		return Property{}, wrap(fmt.Sprintf("get property %d of window %#x", prop, w), c.orLost(err))
	}
	n := int(reply.ValueLen) * int(reply.Format) / 8
	return Property{reply.Type, reply.Format, reply.Value[:min(n, len(reply.Value))], reply.BytesAfter}, nil
}

// Words are the items of a property of format 32, else nil.
func (p Property) Words() []uint32 {
	if p.Format != 32 {
		return nil
	}
	words := make([]uint32, len(p.Data)/4)
	for i := range words {
		words[i] = binary.LittleEndian.Uint32(p.Data[4*i:])
	}
	return words
}

// SetProperty replaces a property by bytes whose items have format bits.
func (c *Conn) SetProperty(w Window, prop, typ Atom, format byte, data []byte) {
	items := uint32(len(data)) / (uint32(format) / 8)
	xproto.ChangeProperty(c.x, xproto.PropModeReplace, w, prop, typ, format, items, data)
}

// SetWords replaces a property by items of 32 bits: cardinals, atoms, windows.
func (c *Conn) SetWords(w Window, prop, typ Atom, words ...uint32) {
	var b []byte
	for _, word := range words {
		b = binary.LittleEndian.AppendUint32(b, word)
	}
	c.SetProperty(w, prop, typ, 32, b)
}

// SetText replaces a property by text of type typ (AtomString, UTF8_STRING).
func (c *Conn) SetText(w Window, prop, typ Atom, text string) {
	c.SetProperty(w, prop, typ, 8, []byte(text))
}

// DeleteProperty removes a property.
func (c *Conn) DeleteProperty(w Window, prop Atom) { xproto.DeleteProperty(c.x, w, prop) }
