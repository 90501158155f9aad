package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// killed runs desktops whose own processes are killed: everything ends by
// itself, or at the latest by `cubicle down`.
func killed(t *testing.T, bin, root string) {
	for _, c := range []struct {
		name     string
		victims  []string
		byItself bool // the qubes end without `cubicle down`
	}{
		{"up", []string{"cubicle up"}, true},
		{"system", []string{"cubicle system"}, true},
		{"up and system", []string{"cubicle up", "cubicle system"}, true},
		{"all", []string{"cubicle up", "cubicle system", "qubesd", "qrexecd"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, begun := traces(t, root), time.Now()
			d := start(t, bin, root, "crun")
			var pids []int
			for _, victim := range c.victims {
				program, command, _ := strings.Cut(victim, " ")
				found := d.commands(t, program, command)
				if len(found) == 0 {
					t.Fatalf("%s does not run", victim)
				}
				pids = append(pids, found...)
			}
			for _, pid := range pids {
				// The death of the ones before may have ended it already.
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
					t.Fatal(err)
				}
			}
			left := func() string {
				var list []string
				for trace := range traces(t, root) {
					group, isGroup := strings.CutPrefix(trace, "control group ")
					switch {
					case before[trace], isGroup && !deserted(group, begun): // or of another desktop
					case strings.HasPrefix(trace, "socket "): // a dead one's name hurts nobody
					default:
						list = append(list, trace)
					}
				}
				return strings.Join(list, "\n")
			}
			if c.byItself {
				eventually(t, left)
			}
			out, err := exec.Command(filepath.Join(bin, "cubicle"), "down", "--root", root).CombinedOutput()
			if err != nil {
				t.Errorf("cubicle down: %v\n%s", err, out)
			}
			if remains := left(); remains != "" {
				t.Errorf("left behind:\n%s", remains)
			}
			for trace := range traces(t, root) {
				if strings.HasPrefix(trace, "socket ") && strings.Contains(trace, "run/qubes") {
					t.Errorf("left behind: %s", trace)
				}
			}
			<-d.ended
			close(d.ended) // it has ended, which is what its cleanup asks
		})
	}
}

// commands lists the processes of a program of ours in this root with the
// given first argument; an empty one is any.
func (d *desktop) commands(t *testing.T, program, command string) []int {
	t.Helper()
	var found []int
	for _, dir := range glob(t, "/proc/[0-9]*") {
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue // it ended meanwhile
		}
		args := strings.Split(string(line), "\x00")
		if args[0] != filepath.Join(d.bin, program) || !strings.Contains(string(line), "\x00"+d.root) || command != "" && args[1] != command {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, pid)
	}
	return found
}
