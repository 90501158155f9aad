package core

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"cubicle/daemon/qube"
)

// host measures what of the computer is dom0's: all that is no qube's.
type host struct {
	proc string // where procfs is

	mu   sync.Mutex // guards what follows
	busy time.Duration
	cpu  map[qube.UUID]time.Duration // of the qubes, when busy was read
	own  time.Duration               // dom0's since the first measurement
}

// use is what a qube, or the computer, uses.
type use struct {
	memory, limit int64 // bytes
	cpu           time.Duration
}

// measure returns what dom0 uses, given what the running qubes do. What a qube
// used between two measurements before it ended counts as dom0's.
func (h *host) measure(qubes map[qube.UUID]use) (use, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all, err := h.computer()
	if err != nil {
		return use{}, fmt.Errorf("measure dom0: %w", err)
	}
	spent := all.cpu - h.busy
	all.memory = max(0, all.memory)
	for id, u := range qubes {
		all.memory -= u.memory
		if before, known := h.cpu[id]; known || h.cpu == nil {
			spent -= u.cpu - before
		}
	}
	h.busy, h.own = all.cpu, h.own+max(0, spent)
	h.cpu = make(map[qube.UUID]time.Duration, len(qubes))
	for id, u := range qubes {
		h.cpu[id] = u.cpu
	}
	return use{max(0, all.memory), all.limit, h.own}, nil
}

// tick is the unit of /proc/stat, the same on all of Linux (proc_stat(5),
// USER_HZ).
const tick = 10 * time.Millisecond

// computer reads what the whole computer uses.
func (h *host) computer() (use, error) {
	memory, err := os.ReadFile(filepath.Join(h.proc, "meminfo"))
	if err != nil {
		return use{}, err
	}
	kib := map[string]int64{}
	for line := range strings.Lines(string(memory)) {
		if f := strings.Fields(line); len(f) >= 2 {
			kib[f[0]], _ = strconv.ParseInt(f[1], 10, 64) // 0 for none is what is looked for below
		}
	}
	if kib["MemTotal:"] == 0 || kib["MemAvailable:"] == 0 {
		return use{}, errors.New("meminfo does not tell of memory")
	}
	stat, err := os.ReadFile(filepath.Join(h.proc, "stat"))
	if err != nil {
		return use{}, err
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	f := strings.Fields(line)
	if len(f) < 8 || f[0] != "cpu" {
		return use{}, errors.New("stat does not tell of processors")
	}
	busy := int64(0)
	for _, i := range []int{1, 2, 3, 6, 7} { // user nice system irq softirq
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return use{}, fmt.Errorf("stat: %w", err)
		}
		busy += n
	}
	return use{(kib["MemTotal:"] - kib["MemAvailable:"]) << 10, kib["MemTotal:"] << 10, time.Duration(busy) * tick}, nil
}

// measureDom0 asks the engines of all running qubes, and counts as dom0's what
// is left.
func (c *Core) measureDom0(ctx context.Context) (use, error) {
	qubes := map[qube.UUID]use{}
	for _, q := range c.View().Qubes() {
		if q.XID() < 0 {
			continue
		}
		memory, limit, cpu, err := c.Measure(ctx, q.UUID())
		if err == nil {
			qubes[q.UUID()] = use{memory, limit, cpu}
		}
	}
	return c.host.measure(qubes)
}
