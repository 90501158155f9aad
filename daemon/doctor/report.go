package doctor

import (
	"fmt"
	"io"
	"strings"
)

// Print writes findings for people, with colours or without: a line for what
// was found, then the consequence and the mend.
func Print(w io.Writer, findings []Finding, color bool) error {
	width := 0
	for _, f := range findings {
		width = max(width, len(f.Subject))
	}
	var b strings.Builder
	for _, f := range findings {
		mark := fmt.Sprintf("%-7s", f.Verdict)
		if color {
			mark = fmt.Sprintf("\x1b[%dm%s\x1b[0m", [...]int{32, 33, 90, 31}[f.Verdict], mark)
		}
		indent := strings.Repeat(" ", width+9)
		fmt.Fprintf(&b, "%-*s %s %s\n%s → %s\n", width, f.Subject, mark, f.Found, indent, f.Consequence)
		if f.Mend != "" {
			fmt.Fprintf(&b, "%s   mend: %s\n", indent, f.Mend)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
