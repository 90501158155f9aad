package enginetest

import (
	"os/exec"
	"strings"
	"testing"
)

// ownerInImage reads a file's owner from an image that is not mounted.
func ownerInImage(t *testing.T, image, path string) string {
	t.Helper()
	out, err := exec.Command("debugfs", "-R", "stat "+path, image).Output()
	if err != nil {
		t.Fatalf("debugfs: %v", err)
	}
	fields := strings.Fields(string(out))
	for i, field := range fields[:max(0, len(fields)-1)] {
		if field == "User:" {
			return fields[i+1]
		}
	}
	return "no such file"
}
