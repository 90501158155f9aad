package client

import "context"

// SystemInfo is what the policy knows of all qubes, as JSON
// (spec/policy.md §8). The socket for it is for root alone; our own qubesd
// tells dom0's desktop user as well.
func (c *Client) SystemInfo(ctx context.Context) (string, error) {
	text, err := c.Call(ctx, "dom0", "cubicle.SystemInfo", "", nil)
	if !Missing(err) || c.Internal == "" || c.Remote != nil {
		return text, err
	}
	internal := Client{Socket: c.Internal}
	return internal.Call(ctx, "dom0", "internal.GetSystemInfo", "", nil)
}
