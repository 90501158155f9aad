package admin

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"cubicle/daemon/core"
)

// poolMethods are the pools of spec/admin-api.md §2.5.
func poolMethods() map[string]method {
	return map[string]method{
		"admin.pool.List":                   {onDom0, absent, absent, listPools},
		"admin.pool.ListDrivers":            {onDom0, absent, absent, listDrivers},
		"admin.pool.Info":                   {onDom0, needed, absent, poolInfo},
		"admin.pool.UsageDetails":           {onDom0, needed, absent, poolUsage},
		"admin.pool.Add":                    {onDom0, needed, needed, addPool},
		"admin.pool.Remove":                 {onDom0, needed, absent, removePool},
		"admin.pool.volume.List":            {onDom0, needed, absent, listPoolVolumes},
		"admin.pool.Set.revisions_to_keep":  {onDom0, needed, needed, setPoolRevisions},
		"admin.pool.Set.ephemeral_volatile": {onDom0, needed, needed, setPoolEphemeral},
	}
}

func listPools(_ context.Context, c *call) (string, error) { return lines(c.core.PoolNames()), nil }

// Options that every pool has, whatever its driver.
const (
	optionRevisions = "revisions_to_keep"
	optionEphemeral = "ephemeral_volatile"
)

func listDrivers(_ context.Context, c *call) (string, error) {
	var list []string
	for _, d := range c.core.Drivers() {
		words := []string{d.Name}
		for _, o := range d.Options {
			words = append(words, o.Name)
		}
		list = append(list, strings.Join(append(words, optionRevisions, optionEphemeral), " "))
	}
	return lines(list), nil
}

func poolInfo(ctx context.Context, c *call) (string, error) {
	info, err := c.core.PoolInfo(ctx, c.req.Arg)
	if err != nil {
		return "", err
	}
	info.Options["name"], info.Options["driver"] = info.Name, info.Driver
	pairs := sortedPairs(info.Options)
	if info.Known {
		pairs = append(pairs, "size="+strconv.FormatInt(info.Size, 10), "usage="+strconv.FormatInt(info.Used, 10))
	}
	return lines(pairs), nil
}

func sortedPairs(m map[string]string) []string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		pairs = append(pairs, key+"="+m[key])
	}
	return pairs
}

func poolUsage(ctx context.Context, c *call) (string, error) {
	info, err := c.core.PoolInfo(ctx, c.req.Arg)
	if err != nil || !info.Known {
		return "", err
	}
	return lines([]string{"data_size=" + strconv.FormatInt(info.Size, 10), "data_usage=" + strconv.FormatInt(info.Used, 10)}), nil
}

func addPool(ctx context.Context, c *call) (string, error) {
	n := core.NewPool{Driver: c.req.Arg, Options: map[string]string{}}
	for _, line := range strings.Split(strings.TrimSuffix(string(c.req.Payload), "\n"), "\n") {
		key, value, ok := strings.Cut(line, "=")
		if _, twice := n.Options[key]; !ok || twice || strings.ContainsFunc(value, notPrintable) {
			return "", core.Failf(core.ProtocolViolation, "bad option %q", printable(line))
		}
		n.Options[key] = value
	}
	name, named := n.Options["name"]
	if !named {
		return "", core.Failf(core.ProtocolViolation, "the option name is needed")
	}
	n.Name = name
	delete(n.Options, "name")
	if text, ok := n.Options[optionRevisions]; ok {
		keep, err := revisionNumber(text)
		if err != nil {
			return "", err
		}
		n.Revisions = &keep
		delete(n.Options, optionRevisions)
	}
	if text, ok := n.Options[optionEphemeral]; ok {
		on, err := truth(text)
		if err == nil && on {
			err = noEphemeral()
		}
		if err != nil {
			return "", err
		}
		delete(n.Options, optionEphemeral)
	}
	return "", c.core.AddPool(ctx, n)
}

func notPrintable(r rune) bool { return r < ' ' || r > '~' }

func removePool(_ context.Context, c *call) (string, error) {
	return "", c.core.RemovePool(c.req.Arg)
}

func listPoolVolumes(_ context.Context, c *call) (string, error) {
	ids, err := c.core.PoolVolumes(c.req.Arg)
	if err != nil {
		return "", err
	}
	var list []string
	for _, id := range ids {
		list = append(list, string(id))
	}
	return lines(list), nil
}

func setPoolRevisions(_ context.Context, c *call) (string, error) {
	n, err := revisionNumber(string(c.req.Payload))
	if err != nil {
		return "", err
	}
	return "", c.core.SetPoolRevisions(c.req.Arg, n)
}

func setPoolEphemeral(ctx context.Context, c *call) (string, error) {
	if _, err := c.core.PoolInfo(ctx, c.req.Arg); err != nil {
		return "", err
	}
	on, err := truth(string(c.req.Payload))
	if err == nil && on {
		err = noEphemeral()
	}
	return "", err
}
