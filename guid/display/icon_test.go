package display

import "testing"

func TestIconIsARoundedSquareInTheLabelsColour(t *testing.T) {
	for _, color := range []uint32{0xcc0000, 0x3465a4, 0x000000, 0xedd400} {
		words := icon(color)
		for _, size := range iconSizes {
			if len(words) < 2+size*size || words[0] != uint32(size) || words[1] != uint32(size) {
				t.Fatalf("colour %06x: no icon of %d pixels", color, size)
			}
			pixels := words[2 : 2+size*size]
			at := func(x, y int) uint32 { return pixels[y*size+x] }
			if got := at(size/2, size/2); got != 0xff000000|color {
				t.Errorf("colour %06x, size %d: the middle is %08x", color, size, got)
			}
			for _, corner := range [][2]int{{0, 0}, {size - 1, 0}, {0, size - 1}, {size - 1, size - 1}} {
				if got := at(corner[0], corner[1]); got>>24 != 0 {
					t.Errorf("colour %06x, size %d: the corner %v is %08x", color, size, corner, got)
				}
			}
			for y := range size {
				for x := range size / 2 {
					if at(x, y) != at(size-1-x, y) || at(x, y) != at(y, x) {
						t.Fatalf("colour %06x, size %d: (%d,%d) is not as its mirror image", color, size, x, y)
					}
				}
			}
			words = words[2+size*size:]
		}
		if len(words) != 0 {
			t.Errorf("colour %06x: %d words too many", color, len(words))
		}
	}
}
