package x11_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"cubicle/guid/x11"
	"cubicle/guid/x11/x11test"
)

func TestServerThatAsksForACookie(t *testing.T) {
	file := filepath.Join(t.TempDir(), "xauth")
	// The number of the display is not known yet: an entry for any.
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	display := x11test.StartWith(t, "-auth", file)
	if c, err := x11.Dial(display); err == nil {
		c.Close()
		t.Log("the server lets everybody in until its file has a cookie")
	}
	add := exec.Command("xauth", "-f", file, "add", host+"/unix"+display, "MIT-MAGIC-COOKIE-1", "00112233445566778899aabbccddeeff")
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("xauth: %v: %s", err, out)
	}
	t.Setenv("XAUTHORITY", os.DevNull)
	x11test.Eventually(t, "a client without the cookie is turned away", func() bool {
		c, err := x11.Dial(display)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	t.Setenv("XAUTHORITY", file)
	c, err := x11.Dial(display)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Sync(); err != nil {
		t.Fatal(err)
	}
}
