package qrexec

import (
	"errors"
	"slices"
	"sync"
	"testing"
)

// account counts what became of each item: all must be freed exactly once.
type account struct {
	mu    sync.Mutex
	freed []int
}

func (a *account) free(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.freed = append(a.freed, n)
}

func (a *account) sorted() []int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(slices.Values(a.freed))
}

func TestOutboxKeepsOrder(t *testing.T) {
	var a account
	o := newOutbox(1000, a.free)
	var got []int
	ended := make(chan error, 1)
	full := make(chan struct{})
	go func() {
		ended <- o.run(func(n int) error {
			got = append(got, n)
			if n == 499 {
				close(full)
			}
			return nil
		})
	}()
	for n := range 500 {
		if !o.put(n) {
			t.Fatalf("%d was not taken", n)
		}
	}
	<-full
	o.close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(got) != 500 || !slices.IsSorted(got) || !slices.Equal(a.sorted(), got) {
		t.Errorf("%d written, %d freed", len(got), len(a.sorted()))
	}
}

func TestOutboxIsBounded(t *testing.T) {
	var a account
	o := newOutbox(3, a.free)
	for n := range 5 {
		if took := o.put(n); took != (n < 3) {
			t.Errorf("%d: %v", n, took)
		}
	}
	if !slices.Equal(a.sorted(), []int{3, 4}) {
		t.Errorf("freed %v", a.sorted())
	}
	o.close()
	if o.put(5) {
		t.Error("a closed outbox takes items")
	}
	if !slices.Equal(a.sorted(), []int{0, 1, 2, 3, 4, 5}) {
		t.Errorf("freed %v", a.sorted())
	}
}

func TestOutboxEndsWithAFailure(t *testing.T) {
	var a account
	o := newOutbox(10, a.free)
	for n := range 4 {
		o.put(n)
	}
	broken := errors.New("broken")
	err := o.run(func(n int) error {
		if n == 1 {
			return broken
		}
		return nil
	})
	if err != broken || !slices.Equal(a.sorted(), []int{0, 1, 2, 3}) || o.put(4) {
		t.Errorf("%v, freed %v", err, a.sorted())
	}
}
