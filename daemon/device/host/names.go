package host

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"cubicle/daemon/device"
)

// Names finds what makers and products are called in the tables usb.ids and
// pci.ids that distributions bring along. It is safe for concurrent use.
type Names struct {
	dirs []string

	mu    sync.Mutex // guards known
	known map[string][2]string
}

// NewNames returns the names in the tables of those folders below a root; the
// first table that is there counts. Where there is none, no name is known.
func NewNames(root string) *Names {
	var dirs []string
	for _, d := range []string{"usr/share/hwdata", "usr/share/misc", "var/lib/usbutils"} {
		dirs = append(dirs, filepath.Join(root, d))
	}
	return &Names{dirs: dirs, known: map[string][2]string{}}
}

// maxKnown bounds what is remembered: qubes make up numbers as they like.
const maxKnown = 1024

// Fill names the maker and the product of a PCI or USB device.
func (n *Names) Fill(i *device.Info) {
	table := map[device.Class]string{device.PCI: "pci.ids", device.USB: "usb.ids", device.Webcam: "usb.ids"}[i.Class]
	if table == "" {
		return
	}
	vendor, rest, _ := strings.Cut(i.ID, ":")
	product, _, _ := strings.Cut(rest, ":")
	vendor, product = strings.TrimPrefix(vendor, "0x"), strings.TrimPrefix(product, "0x")
	if len(vendor) != 4 || len(product) != 4 {
		return
	}
	key := table + vendor + product
	n.mu.Lock()
	defer n.mu.Unlock()
	names, ok := n.known[key]
	if !ok {
		names = n.look(table, vendor, product)
		if len(n.known) >= maxKnown {
			clear(n.known)
		}
		n.known[key] = names
	}
	i.Vendor, i.Product = names[0], names[1]
}

func (n *Names) look(table, vendor, product string) (names [2]string) {
	for _, d := range n.dirs {
		f, err := os.Open(filepath.Join(d, table))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return names // no name is no harm
		}
		defer f.Close()
		names[0], names[1] = find(f, vendor, product)
		return names
	}
	return names
}

// find reads a table: "VENDOR  NAME", and after it, each behind a tab,
// "PRODUCT  NAME".
func find(r io.Reader, vendor, product string) (maker, name string) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		number, text, _ := strings.Cut(strings.TrimPrefix(line, "\t"), "  ")
		switch {
		case line == "" || line[0] == '#':
		case line[0] != '\t':
			if maker != "" {
				return maker, ""
			}
			if number == vendor {
				maker = device.Plain(text)
			}
		case maker != "" && number == product:
			return maker, device.Plain(text)
		}
	}
	return maker, ""
}
