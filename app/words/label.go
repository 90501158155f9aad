package words

// Label is a label's name in the language of the window.
func Label(name string) string {
	switch name {
	case "red":
		return T("red")
	case "orange":
		return T("orange")
	case "yellow":
		return T("yellow")
	case "green":
		return T("green")
	case "gray":
		return T("gray")
	case "blue":
		return T("blue")
	case "purple":
		return T("purple")
	case "black":
		return T("black")
	}
	return name
}
