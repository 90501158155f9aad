package main

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// samples are repeated measurements of one thing.
type samples []time.Duration

// at is the value below which a share of the samples lies.
func (s samples) at(share float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(len(sorted)-1, int(math.Ceil(share*float64(len(sorted))))-1)]
}

func (s samples) median() time.Duration { return s.at(0.5) }

// over is the ratio of medians, NaN without samples.
func (s samples) over(base samples) float64 {
	if len(s) == 0 || base.median() == 0 {
		return math.NaN()
	}
	return float64(s.median()) / float64(base.median())
}

// ms renders a time for people.
func ms(d time.Duration) string {
	v := float64(d) / float64(time.Millisecond)
	switch {
	case d == 0:
		return "–"
	case d < 10*time.Microsecond:
		return fmt.Sprintf("%.2f µs", 1000*v)
	case v < 1:
		return fmt.Sprintf("%.2f ms", v)
	case v < 10:
		return fmt.Sprintf("%.1f ms", v)
	}
	return fmt.Sprintf("%.0f ms", v)
}

func times(ratio float64) string {
	if math.IsNaN(ratio) || math.IsInf(ratio, 0) {
		return "–"
	}
	return fmt.Sprintf("%.2f×", ratio)
}
