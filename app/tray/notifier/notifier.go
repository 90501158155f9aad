// Package notifier speaks StatusNotifierItem, the desktops' protocol for tray
// icons, from all its sides: Item puts an icon with a menu into the tray,
// Watcher is the register of such icons for a session that has none, and Host
// follows the icons that are registered with it. Menus travel as
// com.canonical.dbusmenu: MenuServer offers one, OpenMenu reads one.
//
// The facts are freedesktop.org's draft "StatusNotifierItem" and the
// introspection data of libdbusmenu. What other programs send is checked
// here: sizes before memory is taken, texts before they are shown.
package notifier

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The names of the protocol.
const (
	WatcherName = "org.kde.StatusNotifierWatcher"
	watcherPath = "/StatusNotifierWatcher"
	watcherFace = "org.kde.StatusNotifierWatcher"

	itemPath = "/StatusNotifierItem"
	itemFace = "org.kde.StatusNotifierItem"
	hostName = "org.kde.StatusNotifierHost"

	menuPath = "/StatusNotifierItem/menu"
	menuFace = "com.canonical.dbusmenu"

	busName         = "org.freedesktop.DBus"
	busPath         = "/org/freedesktop/DBus"
	propertiesFace  = "org.freedesktop.DBus.Properties"
	propertyChanged = propertiesFace + ".PropertiesChanged"
)

// Entry is one line of a menu.
type Entry struct {
	// Key tells an entry from its siblings: one that keeps its key is the
	// same entry, whatever else of it changes.
	Key       string
	Label     string // plain text
	Icon      []byte // PNG, or nil
	Disabled  bool
	Separator bool
	Checkable bool
	Checked   bool
	Children  []Entry
	Activate  func() // nil: nothing happens; called on a goroutine of its own
}

// Limits of what another program's icon or menu may bring.
const (
	maxText    = 200     // characters of a label or title
	maxEntries = 1000    // in one menu with all its submenus
	maxDepth   = 8       // of submenus
	maxPixels  = 512     // width and height of an icon
	maxPNG     = 1 << 20 // bytes of a menu entry's icon
	maxItems   = 100     // icons in the tray
	maxSizes   = 32      // of one icon
)

// clean makes a text of another program fit to be shown: one line, without
// control and formatting characters, cut in the middle when it is long.
func clean(text string) string {
	if len(text) > 64*maxText {
		text = text[:64*maxText]
	}
	text = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError, unicode.Is(unicode.Cf, r):
			return -1
		case unicode.IsControl(r), unicode.IsSpace(r):
			return ' '
		}
		return r
	}, text)
	text = strings.TrimSpace(text)
	if runes := []rune(text); len(runes) > maxText {
		half := maxText / 2
		text = string(runes[:half-1]) + "…" + string(runes[len(runes)-half:])
	}
	return text
}

// mark writes a plain text as a dbusmenu label, in which "_" announces an
// access key.
func mark(text string) string { return strings.ReplaceAll(text, "_", "__") }

// unmark takes the access keys out of a dbusmenu label.
func unmark(label string) string {
	var out strings.Builder
	for i := 0; i < len(label); i++ {
		if label[i] == '_' {
			i++
			if i == len(label) {
				break
			}
		}
		out.WriteByte(label[i])
	}
	return out.String()
}
