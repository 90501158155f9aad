package dom0

import "cubicle/daemon/qube"

// ParseLabel is the built-in label of that name.
func ParseLabel(text string) (Label, error) { return qube.ParseLabel(text) }
