package admin

import (
	"context"
	"crypto/rand"
	"strconv"
	"strings"
	"sync"

	"cubicle/daemon/core"
	"cubicle/daemon/qube"
)

// volumeMethods are the volumes of qubes of spec/admin-api.md §2.5.
func volumeMethods() map[string]method {
	return map[string]method{
		"admin.vm.volume.List":                  {onAny, absent, absent, listVolumes},
		"admin.vm.volume.Info":                  {onAny, needed, absent, volumeInfo},
		"admin.vm.volume.ListSnapshots":         {onAny, needed, absent, listSnapshots},
		"admin.vm.volume.Revert":                {onAny, needed, needed, revertVolume},
		"admin.vm.volume.CloneFrom":             {onAny, needed, absent, cloneFrom},
		"admin.vm.volume.CloneTo":               {onAny, needed, needed, cloneTo},
		"admin.vm.volume.Resize":                {onAny, needed, needed, resizeVolume},
		"admin.vm.volume.Clear":                 {onAny, needed, absent, clearVolume},
		"admin.vm.volume.Import":                {onAny, needed, contents, importVolume},
		"admin.vm.volume.ImportWithSize":        {onAny, needed, contents, importWithSize},
		"admin.vm.volume.Set.revisions_to_keep": {onAny, needed, needed, setVolumeRevisions},
		"admin.vm.volume.Set.rw":                {onAny, needed, needed, setVolumeWritable},
		"admin.vm.volume.Set.ephemeral":         {onAny, needed, needed, setVolumeEphemeral},
	}
}

func listVolumes(_ context.Context, c *call) (string, error) {
	var names []string
	for _, v := range c.dest.Volumes() {
		names = append(names, v.Name)
	}
	return lines(names), nil
}

func volumeInfo(ctx context.Context, c *call) (string, error) {
	i, err := c.core.VolumeInfo(ctx, c.dest.UUID(), c.req.Arg)
	if err != nil {
		return "", err
	}
	return lines([]string{
		"pool=" + i.Pool, "vid=" + string(i.Spec.VID),
		"size=" + strconv.FormatInt(i.Size, 10), "usage=" + strconv.FormatInt(i.Usage, 10),
		"rw=" + boolean(i.Spec.ReadWrite), "source=" + string(i.Spec.Source), "path=",
		"save_on_stop=" + boolean(i.Spec.SaveOnStop), "snap_on_start=" + boolean(i.Spec.SnapOnStart),
		"revisions_to_keep=" + strconv.Itoa(i.Spec.Revisions), "ephemeral=False",
		"is_outdated=" + boolean(i.Outdated),
	}), nil
}

func listSnapshots(ctx context.Context, c *call) (string, error) {
	i, err := c.core.VolumeInfo(ctx, c.dest.UUID(), c.req.Arg)
	if err != nil {
		return "", err
	}
	var list []string
	for _, r := range i.Revisions {
		list = append(list, wireRevision(r))
	}
	return lines(list), nil
}

// volume finds the one that the argument names.
func (c *call) volume() (core.Volume, error) {
	v, ok := c.dest.Volume(c.req.Arg)
	if !ok {
		return core.Volume{}, core.Failf(core.PermissionDenied, "%s has no volume %q", c.dest.Name(), printable(c.req.Arg))
	}
	return v, nil
}

// revisionBytes are those of a revision's id.
const revisionBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:._-"

// wireRevision is the id of a revision: its name in the pool, where '@' is
// allowed as well.
func wireRevision(name string) string { return strings.ReplaceAll(name, "@", "_") }

func revertVolume(ctx context.Context, c *call) (string, error) {
	if _, err := c.volume(); err != nil {
		return "", err
	}
	wanted := string(c.req.Payload)
	if strings.Trim(wanted, revisionBytes) != "" {
		return "", core.Failf(core.ProtocolViolation, "%q is not a revision", printable(wanted))
	}
	i, err := c.core.VolumeInfo(ctx, c.dest.UUID(), c.req.Arg)
	if err != nil {
		return "", err
	}
	for _, r := range i.Revisions {
		if wireRevision(r) == wanted {
			return "", c.core.RevertVolume(ctx, c.dest.UUID(), c.req.Arg, r)
		}
	}
	return "", core.Failf(core.NoRevision, "the volume %s of %s has no revision %s", c.req.Arg, c.dest.Name(), wanted)
}

func clearVolume(ctx context.Context, c *call) (string, error) {
	if _, err := c.volume(); err != nil {
		return "", err
	}
	return "", c.core.ClearVolume(ctx, c.dest.UUID(), c.req.Arg)
}

// tokens stand for volumes that may be copied once. They live as long as the
// daemon.
type tokens struct {
	mu   sync.Mutex
	list []token // oldest first
}

type token struct {
	text   string
	qube   qube.UUID
	volume string
}

// maxTokens is how many may be unused; one more, and the oldest is forgotten.
const maxTokens = 1024

func (t *tokens) make(id qube.UUID, volume string) string {
	made := token{(rand.Text() + rand.Text())[:32], id, volume}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = append(t.list, made)
	t.list = t.list[max(0, len(t.list)-maxTokens):]
	return made.text
}

// take uses a token up.
func (t *tokens) take(text string) (token, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, k := range t.list {
		if k.text == text {
			t.list = append(t.list[:i:i], t.list[i+1:]...)
			return k, true
		}
	}
	return token{}, false
}

func cloneFrom(_ context.Context, c *call) (string, error) {
	if _, err := c.volume(); err != nil {
		return "", err
	}
	return c.tokens.make(c.dest.UUID(), c.req.Arg), nil
}

func cloneTo(ctx context.Context, c *call) (string, error) {
	if _, err := c.volume(); err != nil {
		return "", err
	}
	from, ok := c.tokens.take(strings.TrimSpace(string(c.req.Payload)))
	if !ok {
		return "", core.Failf(core.NoVolumeToken, "there is no such token, or it was used")
	}
	return "", c.core.CloneVolume(ctx, c.dest.UUID(), c.req.Arg, from.qube, from.volume)
}

func resizeVolume(ctx context.Context, c *call) (string, error) {
	size, err := number(string(c.req.Payload))
	if err != nil {
		return "", err
	}
	return "", c.core.ResizeVolume(ctx, c.dest.UUID(), c.req.Arg, size)
}

func setVolumeRevisions(_ context.Context, c *call) (string, error) {
	if _, err := c.volume(); err != nil {
		return "", err
	}
	n, err := revisionNumber(string(c.req.Payload))
	if err != nil {
		return "", err
	}
	return "", c.core.SetVolumeRevisions(c.dest.UUID(), c.req.Arg, n)
}

func setVolumeWritable(_ context.Context, c *call) (string, error) {
	if _, err := c.volume(); err != nil {
		return "", err
	}
	on, err := truth(string(c.req.Payload))
	if err != nil {
		return "", err
	}
	return "", c.core.SetVolumeReadOnly(c.dest.UUID(), c.req.Arg, !on)
}

func setVolumeEphemeral(_ context.Context, c *call) (string, error) {
	v, err := c.volume()
	if err != nil {
		return "", err
	}
	on, err := truth(string(c.req.Payload))
	switch {
	case err != nil:
		return "", err
	case !on:
		return "", nil // as it is
	case v.Spec.SaveOnStop || v.Spec.SnapOnStart || !v.Spec.ReadWrite:
		return "", core.Failf(core.PoolFailure, "the volume %s of %s is not one that is made anew at each start", v.Name, c.dest.Name())
	}
	return "", noEphemeral()
}

func noEphemeral() error {
	return core.Failf(core.NotImplemented, "no storage driver of this system encrypts volumes with a key that is thrown away")
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

// maxRevisions bounds how many old states anybody keeps.
const maxRevisions = 1 << 20

// revisionNumber reads how many revisions are to be kept: -1 or more.
func revisionNumber(text string) (int, error) {
	if text == "-1" {
		return -1, nil
	}
	n, err := number(text)
	if err == nil && n > maxRevisions {
		err = core.Failf(core.BadValue, "at most %d revisions can be kept", maxRevisions)
	}
	return int(n), err
}

// truth reads a boolean (spec/admin-api.md §1.1).
func truth(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "1", "yes", "true", "on":
		return true, nil
	case "0", "no", "false", "off":
		return false, nil
	}
	return false, core.Failf(core.ProtocolViolation, "%q is not a truth value", printable(text))
}
