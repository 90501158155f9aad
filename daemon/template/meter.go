package template

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// meter turns what mmdebstrap says into progress. mmdebstrap installs twice:
// the essential packages, then the recipe's; apt tells beforehand how many
// each time, and names every package when it is fetched, unpacked and set up.
type meter struct {
	progress func(float64, string)
	round    int // 1: essential, 2: the recipe's
	total    int // packages of this round
	fetched  int
	unpacked int
	set      int
	last     float64
}

// Where the two rounds begin and end, measured.
var rounds = [...][2]float64{{0.01, 0.04}, {0.04, 0.22}, {0.22, endInstall}}

var newly = regexp.MustCompile(`(\d+) newly installed`)

// line takes one line of mmdebstrap.
func (m *meter) line(text string) {
	switch {
	case strings.HasPrefix(text, "Get:"):
		m.fetched++
	case strings.HasPrefix(text, "Unpacking "):
		m.unpacked++
	case strings.HasPrefix(text, "Setting up "):
		m.set++
	case strings.Contains(text, "running --customize-hook"):
		m.tell(endInstall, "Setting up the template")
		return
	default:
		if found := newly.FindStringSubmatch(text); found != nil && m.round+1 < len(rounds) {
			n, err := strconv.Atoi(found[1])
			if err == nil && n > 0 {
				m.round++
				m.total, m.fetched, m.unpacked, m.set = n, 0, 0, 0
			}
		}
		return
	}
	if m.total == 0 {
		return // apt fetches its lists
	}
	limits := rounds[m.round]
	// Fetching is a fifth of the time, unpacking and setting up the rest.
	part := 0.2*m.share(m.fetched) + 0.4*m.share(m.unpacked) + 0.4*m.share(m.set)
	verb := "Downloading"
	done := m.fetched
	switch {
	case m.set > 0:
		verb, done = "Setting up", m.set
	case m.unpacked > 0:
		verb, done = "Unpacking", m.unpacked
	}
	m.tell(limits[0]+part*(limits[1]-limits[0]), fmt.Sprintf("%s packages (%d of %d)", verb, min(done, m.total), m.total))
}

func (m *meter) share(n int) float64 { return min(1, float64(n)/float64(m.total)) }

// tell reports, never going back.
func (m *meter) tell(fraction float64, text string) {
	m.last = max(m.last, fraction)
	m.progress(m.last, text)
}
