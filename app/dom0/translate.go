package dom0

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/qube"
)

// fromQube checks what the daemon says of a qube; what cannot be is said.
func fromQube(q client.Qube) (Qube, error) {
	name, err := qube.ParseName(q.Name)
	if err != nil {
		return Qube{}, fmt.Errorf("qube %s: %w", q.UUID, err)
	}
	template, err := maybeName(q.Template)
	if err != nil {
		return Qube{}, fmt.Errorf("template of %s: %w", name, err)
	}
	netVM, err := maybeName(q.NetVM)
	if err != nil {
		return Qube{}, fmt.Errorf("network of %s: %w", name, err)
	}
	if err := qube.CheckLabelName(q.Label); err != nil {
		return Qube{}, fmt.Errorf("label of %s: %w", name, err)
	}
	return Qube{
		ID:         QubeID(q.UUID),
		Name:       name,
		Class:      q.Class,
		Label:      Label{Name: q.Label, Index: int(q.LabelIndex), Color: q.LabelColor},
		State:      q.State,
		Template:   template,
		NetVM:      netVM,
		XID:        int(q.XID),
		Engine:     oneLine(q.Engine),
		Isolation:  oneLine(q.Isolation),
		Weakness:   oneLine(q.Weakness),
		MemoryMax:  q.Memory,
		VCPUs:      q.VCPUs,
		User:       oneLine(q.DefaultUser),
		Started:    q.StartTime,
		MemoryUsed: q.MemoryUsed,
		CPU:        within(q.CPUUsage, 100*1024),
		Disk:       q.DiskUsage,
		Problem:    oneLine(q.Error),
		Outdated:   q.Outdated,

		ProvidesNetwork: q.ProvidesNetwork,
		LastBackup:      q.LastBackup,

		DisposableTemplate: q.DisposableTemplate,
		Updates:            q.UpdatesAvailable,
	}, nil
}

// maybeName checks a name that may be none.
func maybeName(text string) (Name, error) {
	if text == "" {
		return "", nil
	}
	return qube.ParseName(text)
}

func fromJob(j client.Job) (Job, error) {
	name, err := maybeName(j.Qube)
	if err != nil {
		return Job{}, fmt.Errorf("job %d: %w", j.ID, err)
	}
	return Job{
		ID:        jobID(j.ID),
		Kind:      j.Kind,
		Qube:      name,
		Text:      oneLine(j.Text),
		Progress:  within(j.Progress, 1),
		State:     JobState(j.State),
		ErrorName: j.ErrorName,
		Error:     oneLine(j.Error),
	}, nil
}

func engines(list []client.Engine) []Engine {
	out := make([]Engine, len(list))
	for i, e := range list {
		out[i] = Engine{Name: e.Name, Isolation: e.Isolation, Weakness: oneLine(e.Weakness)}
	}
	return out
}

func sortedJobs(jobs map[uint64]client.Job) []uint64 { return slices.Sorted(maps.Keys(jobs)) }

func jobID(n uint64) JobID { return JobID(strconv.FormatUint(n, 10)) }

func jobNumber(id JobID) (uint64, error) { return strconv.ParseUint(string(id), 10, 64) }

// within bounds a figure to 0…limit; what is no number is 0.
func within(v, limit float64) float64 {
	if !(v > 0) {
		return 0
	}
	return min(v, limit)
}
