package strip

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"image/png"

	"fyne.io/fyne/v2"
	fynetheme "fyne.io/fyne/v2/theme"

	"cubicle/app/tray/notifier"
)

// resource is a tray icon's picture; a sign stands for one that has none.
func resource(s notifier.Shown) fyne.Resource {
	if s.Icon.File != nil {
		return fyne.NewStaticResource(s.Icon.Name, s.Icon.File)
	}
	if s.Icon.Image == nil {
		return fynetheme.BrokenImageIcon()
	}
	var out bytes.Buffer
	if err := png.Encode(&out, s.Icon.Image); err != nil {
		return fynetheme.BrokenImageIcon() // a picture without pixels
	}
	sum := fnv.New64a()
	sum.Write(out.Bytes())
	return fyne.NewStaticResource(fmt.Sprintf("tray-%x.png", sum.Sum64()), out.Bytes())
}
