package admin

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"cubicle/daemon/core"
)

// Volumes and pools.

func listVolumes(_ context.Context, c *call) (string, error) {
	var names []string
	for _, v := range c.dest.Volumes() {
		names = append(names, v.Name)
	}
	return lines(names), nil
}

func volumeInfo(ctx context.Context, c *call) (string, error) {
	infos, err := c.core.VolumeInfos(ctx, c.dest.UUID())
	if err != nil {
		return "", err
	}
	for _, i := range infos {
		if i.Name != c.req.Arg {
			continue
		}
		pairs := []string{
			"pool=" + i.Pool, "vid=" + string(i.Spec.VID),
			"size=" + strconv.FormatInt(i.Size, 10), "usage=" + strconv.FormatInt(i.Usage, 10),
			"rw=" + boolean(i.Spec.ReadWrite), "source=" + string(i.Spec.Source), "path=",
			"save_on_stop=" + boolean(i.Spec.SaveOnStop), "snap_on_start=" + boolean(i.Spec.SnapOnStart),
			"revisions_to_keep=" + strconv.Itoa(i.Spec.Revisions), "ephemeral=False",
			"is_outdated=" + boolean(i.Outdated),
		}
		return lines(pairs), nil
	}
	return "", c.noVolume()
}

func (c *call) noVolume() error {
	return core.Failf(core.PermissionDenied, "%s has no volume %q", c.dest.Name(), printable(c.req.Arg))
}

func resizeVolume(ctx context.Context, c *call) (string, error) {
	size, err := number(string(c.req.Payload))
	if err != nil {
		return "", err
	}
	return "", c.core.ResizeVolume(ctx, c.dest.UUID(), c.req.Arg, size)
}

// number reads a size or count (spec/admin-api.md §1.1): digits only, at most
// 19, no leading zero.
func number(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strings.Trim(text, "0123456789") != "" || text[0] == '0' && text != "0" {
		return 0, core.Failf(core.ProtocolViolation, "%q is not a number", printable(text))
	}
	return n, nil
}

func listPools(_ context.Context, c *call) (string, error) {
	var names []string
	for _, p := range c.core.Pools() {
		names = append(names, p.Name())
	}
	return lines(names), nil
}

func poolInfo(ctx context.Context, c *call) (string, error) {
	for _, p := range c.core.Pools() {
		if p.Name() != c.req.Arg {
			continue
		}
		size, used, err := p.Usage(ctx)
		if err != nil {
			return "", err
		}
		return lines([]string{"driver=" + p.Driver(), "name=" + p.Name(),
			fmt.Sprintf("size=%d", size), fmt.Sprintf("usage=%d", used)}), nil
	}
	return "", core.Failf(core.PermissionDenied, "there is no pool %q", printable(c.req.Arg))
}
