package notifier

import (
	"fmt"
	"image"
	"image/color"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Icon is a picture in the tray: pixels, or the text of an image file.
type Icon struct {
	Image image.Image
	File  []byte // PNG or SVG
	Name  string // of the file, with its ending
}

// straight is a colour without its transparency multiplied in.
func straight(c color.Color) color.NRGBA { return color.NRGBAModel.Convert(c).(color.NRGBA) }

// decode checks a pixmap of another program and makes a picture of it.
func (p pixmap) decode() (image.Image, error) {
	if p.Width < 1 || p.Height < 1 || p.Width > maxPixels || p.Height > maxPixels {
		return nil, fmt.Errorf("icon of %d×%d pixels", p.Width, p.Height)
	}
	if len(p.Data) != 4*int(p.Width)*int(p.Height) {
		return nil, fmt.Errorf("icon of %d×%d pixels in %d bytes", p.Width, p.Height, len(p.Data))
	}
	img := image.NewNRGBA(image.Rect(0, 0, int(p.Width), int(p.Height)))
	for i := 0; i < len(p.Data); i += 4 {
		img.Pix[i], img.Pix[i+1], img.Pix[i+2], img.Pix[i+3] = p.Data[i+1], p.Data[i+2], p.Data[i+3], p.Data[i]
	}
	return img, nil
}

// pixmaps reads a value of signature a(iiay) as the bus library gives it; of
// another kind it is empty.
func pixmaps(value any) []pixmap {
	list, _ := value.([][]any)
	var out []pixmap
	for _, fields := range list[:min(len(list), maxSizes)] {
		if len(fields) != 3 {
			return nil
		}
		var p pixmap
		var ok [3]bool
		p.Width, ok[0] = fields[0].(int32)
		p.Height, ok[1] = fields[1].(int32)
		p.Data, ok[2] = fields[2].([]byte)
		if ok != [3]bool{true, true, true} {
			return nil
		}
		out = append(out, p)
	}
	return out
}

// wantedSize is the icon size that is looked for: twice that of the strip,
// for screens of high density.
const wantedSize = 44

// best is the pixmap that is large enough and else the largest; nil when none
// can be used.
func best(pixmaps []pixmap) image.Image {
	var found image.Image
	better := func(size, than int) bool {
		if than < wantedSize {
			return size > than
		}
		return size >= wantedSize && size < than
	}
	for _, p := range pixmaps {
		img, err := p.decode()
		if err == nil && (found == nil || better(img.Bounds().Dx(), found.Bounds().Dx())) {
			found = img
		}
	}
	return found
}

// maxFile bounds an icon's file.
const maxFile = 1 << 20

// named finds an icon by its name: below the program's own folder first, then
// in the fallback theme and among the pixmaps (freedesktop.org's Icon Theme
// Specification, the part that every desktop falls back to).
func named(name, folder string, share []string) (Icon, bool) {
	if filepath.IsAbs(name) {
		return readIcon(name)
	}
	if name == "" || strings.ContainsAny(name, "/\x00") || strings.HasPrefix(name, ".") {
		return Icon{}, false
	}
	var folders []string
	if filepath.IsAbs(folder) {
		folders = append(folders, folder)
		share = append([]string{filepath.Dir(folder)}, share...)
		folders = append(folders, themed(folder)...)
	}
	for _, s := range share {
		folders = append(folders, themed(filepath.Join(s, "icons"))...)
		folders = append(folders, filepath.Join(s, "pixmaps"))
	}
	for _, f := range folders {
		for _, ending := range []string{".svg", ".png"} {
			if icon, ok := readIcon(filepath.Join(f, name+ending)); ok {
				return icon, true
			}
		}
	}
	return Icon{}, false
}

// themed are the folders of the fallback theme, the best size first.
func themed(icons string) []string {
	var out []string
	for _, size := range []int{0, 48, 64, 32, 24, 22, 128, 256, 16} {
		folder := "scalable"
		if size > 0 {
			folder = strconv.Itoa(size) + "x" + strconv.Itoa(size)
		}
		for _, context := range []string{"apps", "status", "devices", "panel", "actions"} {
			out = append(out, filepath.Join(icons, "hicolor", folder, context))
		}
	}
	return out
}

func readIcon(path string) (Icon, bool) {
	ending := filepath.Ext(path)
	if ending != ".png" && ending != ".svg" {
		return Icon{}, false
	}
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxFile {
		return Icon{}, false
	}
	text, err := os.ReadFile(path)
	if err != nil || len(text) > maxFile {
		return Icon{}, false
	}
	return Icon{File: text, Name: path}, true
}

// shareFolders are the folders of shared data (XDG Base Directory
// Specification).
func shareFolders() []string {
	var out []string
	if home, err := os.UserHomeDir(); err == nil {
		out = append(out, filepath.Join(home, ".local/share"))
	}
	dirs := os.Getenv("XDG_DATA_DIRS")
	if dirs == "" {
		dirs = "/usr/local/share:/usr/share"
	}
	return append(out, filepath.SplitList(dirs)...)
}
