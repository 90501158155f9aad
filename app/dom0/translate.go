package dom0

import (
	"maps"
	"slices"
	"strconv"

	"cubicle/daemon/bus/client"
)

func fromQube(q client.Qube) Qube {
	return Qube{
		ID:         QubeID(q.UUID),
		Name:       q.Name,
		Class:      q.Class,
		Label:      Label{Name: q.Label, Index: int(q.LabelIndex), Color: q.LabelColor},
		State:      q.State,
		Template:   q.Template,
		NetVM:      q.NetVM,
		XID:        int(q.XID),
		Engine:     q.Engine,
		Isolation:  q.Isolation,
		Weakness:   oneLine(q.Weakness),
		MemoryMax:  q.Memory,
		VCPUs:      q.VCPUs,
		User:       q.DefaultUser,
		Started:    q.StartTime,
		MemoryUsed: q.MemoryUsed,
		CPU:        within(q.CPUUsage, 100*1024),
		Disk:       q.DiskUsage,
		Problem:    oneLine(q.Error),
		Outdated:   q.Outdated,

		ProvidesNetwork: q.ProvidesNetwork,
	}
}

func fromJob(j client.Job) Job {
	return Job{
		ID:        jobID(j.ID),
		Kind:      j.Kind,
		Qube:      j.Qube,
		Text:      oneLine(j.Text),
		Progress:  within(j.Progress, 1),
		State:     JobState(j.State),
		ErrorName: j.ErrorName,
		Error:     oneLine(j.Error),
	}
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
