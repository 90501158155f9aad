package dom0_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"cubicle/app/dom0"
	"cubicle/app/dom0/dom0test"
	"cubicle/daemon/qube"
)

// startBus runs a private bus for the test.
func startBus(t *testing.T) string {
	t.Helper()
	address, stop, err := dom0test.StartBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return address
}

func serve(t *testing.T, address string) *dom0test.Service {
	t.Helper()
	s, err := dom0test.Serve(address)
	if err != nil {
		t.Fatal(err)
	}
	s.Step = 5 * time.Millisecond
	return s
}

// wait watches until the state is as wanted.
func wait(t *testing.T, b *dom0.Bus, what string, wanted func(*dom0.Snapshot) bool) *dom0.Snapshot {
	t.Helper()
	news := make(chan *dom0.Snapshot, 1000)
	stop := b.Watch(func(s *dom0.Snapshot) {
		select {
		case news <- s:
		default:
			t.Error("too many snapshots")
		}
	})
	defer stop()
	s := b.Snapshot()
	deadline := time.After(5 * time.Second)
	for !wanted(s) {
		select {
		case s = <-news:
		case <-deadline:
			t.Fatalf("%s: not seen; the state is %+v", what, s)
		}
	}
	return s
}

func hasState(name dom0.Name, state dom0.State) func(*dom0.Snapshot) bool {
	return func(s *dom0.Snapshot) bool {
		q, ok := s.ByName(name)
		return ok && q.State == state
	}
}

func connected(s *dom0.Snapshot) bool { return s.Link == dom0.Connected }

func TestWindowOpensBeforeTheDaemonAndSurvivesItsRestart(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	address := startBus(t)
	b := dom0.Connect(address)
	defer b.Close()
	if b.Snapshot().Link != dom0.Connecting {
		t.Error("connected before there was a daemon")
	}
	wait(t, b, "the reason", func(s *dom0.Snapshot) bool { return s.Problem != "" })

	first := serve(t, address)
	first.Add("work", qube.AppVM, "blue", "debian-12")
	s := wait(t, b, "work", func(s *dom0.Snapshot) bool { return connected(s) && len(s.Qubes) == 1 })
	if s.Problem != "" {
		t.Errorf("connected, and yet a problem: %s", s.Problem)
	}
	if len(s.Labels) != 8 || s.Labels[0].Name != "red" || s.DefaultTemplate != "debian-12" || len(s.Engines) != 2 {
		t.Errorf("labels, default or engines: %+v", s)
	}
	q := s.Qubes[0]
	if q.Label != (dom0.Label{Name: "blue", Index: 6, Color: 0x3465a4}) || q.Isolation != "gVisor" || q.XID != -1 || !q.Started.IsZero() {
		t.Errorf("work is %+v", q)
	}

	first.Close()
	s = wait(t, b, "the loss", func(s *dom0.Snapshot) bool { return s.Link == dom0.Lost })
	if len(s.Qubes) != 1 || s.Problem == "" {
		t.Errorf("after the loss: %d qubes, problem %q; want the last known state and a reason", len(s.Qubes), s.Problem)
	}
	second := serve(t, address)
	defer second.Close()
	second.Add("vault", qube.AppVM, "black", "debian-12")
	s = wait(t, b, "vault", func(s *dom0.Snapshot) bool { return connected(s) && len(s.Qubes) == 1 && s.Qubes[0].Name == "vault" })
	if s.Problem != "" {
		t.Errorf("connected again, and yet a problem: %s", s.Problem)
	}
}

func TestActionsReachTheDaemonAndTheirJobsComeBack(t *testing.T) {
	address := startBus(t)
	service := serve(t, address)
	defer service.Close()
	service.Add("debian-12", qube.TemplateVM, "black", "")
	id := dom0.QubeID(service.Add("work", qube.AppVM, "blue", "debian-12"))
	service.FailStart("shopping", "no room\nat all")
	b := dom0.Connect(address)
	defer b.Close()
	wait(t, b, "work", hasState("work", dom0.Halted))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	job, err := b.Start(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, b, "work runs", hasState("work", dom0.Running))
	done := func(kind string, job dom0.JobID) {
		t.Helper()
		wait(t, b, "the end of "+kind, func(s *dom0.Snapshot) bool {
			return slices.ContainsFunc(s.Jobs, func(j dom0.Job) bool { return j.ID == job && j.State == dom0.JobDone && j.Kind == kind })
		})
	}
	done("start", job)
	for _, action := range []struct {
		kind string
		act  func() (dom0.JobID, error)
	}{
		{"app", func() (dom0.JobID, error) { return b.StartApp(ctx, id, dom0.TerminalApp) }},
		{"run", func() (dom0.JobID, error) { return b.Run(ctx, id, "xclock", "root") }},
		{"pause", func() (dom0.JobID, error) { return b.Pause(ctx, id) }},
		{"unpause", func() (dom0.JobID, error) { return b.Unpause(ctx, id) }},
		{"clone", func() (dom0.JobID, error) { return b.Clone(ctx, id, "work-2") }},
	} {
		job, err := action.act()
		if err != nil {
			t.Errorf("%s: %v", action.kind, err)
			continue
		}
		done(action.kind, job)
	}
	if _, err := b.Shutdown(ctx, id, false); err != nil {
		t.Error(err)
	}
	wait(t, b, "work is off", hasState("work", dom0.Halted))
	if _, err := b.Create(ctx, dom0.NewQube{Name: "shopping", Class: dom0.AppVM, Label: dom0.Label{Name: "orange"}, Template: "debian-12"}); err != nil {
		t.Fatal(err)
	}
	s := wait(t, b, "shopping", hasState("shopping", dom0.Halted))
	shopping, _ := s.ByName("shopping")
	if _, err := b.Start(ctx, shopping.ID); err != nil {
		t.Fatal(err)
	}
	s = wait(t, b, "the failure", func(s *dom0.Snapshot) bool {
		return slices.ContainsFunc(s.Jobs, func(j dom0.Job) bool { return j.State == dom0.JobFailed })
	})
	for _, j := range s.Jobs {
		if j.State == dom0.JobFailed && (j.Error != "no room at all" || j.Qube != "shopping" || j.ErrorName != "QubesException") {
			t.Errorf("the failed job is %+v", j)
		}
	}
	if _, err := b.Remove(ctx, shopping.ID); err != nil {
		t.Fatal(err)
	}
	wait(t, b, "shopping is gone", func(s *dom0.Snapshot) bool { _, there := s.ByName("shopping"); return !there })

	calls := service.Calls()
	for _, want := range []string{"start work", "app qubes-run-terminal work", "run xclock work", "pause work", "clone work", "create shopping AppVM orange debian-12", "remove shopping"} {
		if !slices.Contains(calls, want) {
			t.Errorf("the daemon was not asked %q; it was asked %q", want, calls)
		}
	}
}

func TestRefusalsCarryOperationSubjectAndReason(t *testing.T) {
	address := startBus(t)
	service := serve(t, address)
	defer service.Close()
	uuid := service.Add("work", qube.AppVM, "blue", "debian-12")
	service.Set(uuid, map[string]any{"State": "Running", "CPUUsage": math.NaN()})
	b := dom0.Connect(address)
	defer b.Close()
	s := wait(t, b, "work", hasState("work", dom0.Running))
	if cpu := s.Qubes[0].CPU; cpu != 0 {
		t.Errorf("a figure that is no number became %v", cpu)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := b.Start(ctx, dom0.QubeID(uuid))
	refused := (*dom0.Error)(nil)
	if !errors.As(err, &refused) {
		t.Fatalf("starting what runs: %v", err)
	}
	if refused.Op != "start" || refused.Subject != "work" || refused.Name != "QubesVMNotHaltedError" || refused.Reason != "work is not halted" {
		t.Errorf("the refusal is %+v", refused)
	}
	if err := b.Cancel(ctx, "not a number"); !errors.As(err, &refused) || refused.Op != "cancel" {
		t.Errorf("cancel of nonsense: %v", err)
	}
}

func TestActionsWithoutABusFailSoon(t *testing.T) {
	b := dom0.Connect("unix:path=" + t.TempDir() + "/nobody")
	defer b.Close()
	began := time.Now()
	_, err := b.Start(context.Background(), "some")
	if refused := (*dom0.Error)(nil); !errors.As(err, &refused) {
		t.Errorf("without a bus: %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestTheDiskIsKnownSoon(t *testing.T) {
	address := startBus(t)
	service := serve(t, address)
	defer service.Close()
	uuid := service.Add("debian-12", qube.TemplateVM, "black", "")
	service.Set(uuid, map[string]any{"UpdatesAvailable": true, "LastBackup": uint64(1_700_000_000)})
	b := dom0.Connect(address)
	defer b.Close()
	s := wait(t, b, "the disk", func(s *dom0.Snapshot) bool { return s.Disk == dom0.Disk{Size: 100e9, Used: 12e9} && len(s.Qubes) == 1 })
	if q := s.Qubes[0]; !q.Updates || q.LastBackup.Unix() != 1_700_000_000 || q.DisposableTemplate {
		t.Errorf("%+v", q)
	}
	for disk, scarce := range map[dom0.Disk]bool{{}: false, s.Disk: false, {Size: 100e9, Used: 91e9}: true, {Size: 100e9, Used: 101e9}: true, {Size: 1e12, Used: 95e10}: false} {
		if disk.Scarce() != scarce {
			t.Errorf("%+v is scarce: %v", disk, !scarce)
		}
	}
}

// Five hundred qubes whose figures change make a handful of snapshots.
func TestABurstOfFiguresMakesFewSnapshots(t *testing.T) {
	address := startBus(t)
	service := serve(t, address)
	defer service.Close()
	var ids []string
	for range 50 {
		ids = append(ids, service.Add("q"+string(rune('a'+len(ids)%26))+string(rune('a'+len(ids)/26)), qube.AppVM, "red", "debian-12"))
	}
	b := dom0.Connect(address)
	defer b.Close()
	wait(t, b, "the qubes", func(s *dom0.Snapshot) bool { return len(s.Qubes) == 50 })
	var n atomic.Int32
	stop := b.Watch(func(*dom0.Snapshot) { n.Add(1) })
	for round := range 10 {
		for _, id := range ids {
			service.Set(id, map[string]any{"CPUUsage": float64(round + 1)})
		}
	}
	wait(t, b, "the last figure", func(s *dom0.Snapshot) bool {
		return !slices.ContainsFunc(s.Qubes, func(q dom0.Qube) bool { return q.CPU != 10 })
	})
	stop()
	if n.Load() > 6 {
		t.Errorf("500 changes made %d snapshots", n.Load())
	}
}
