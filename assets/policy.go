package assets

import (
	"embed"
	"io/fs"
)

//go:embed policy.d
var policy embed.FS

// Policy is the folder of the policy that a system begins with: files *.policy
// and the folder include (spec/policy.md §1, spec/services.md §1).
func Policy() fs.FS {
	sub, err := fs.Sub(policy, "policy.d")
	if err != nil {
		panic(err) // the name is valid
	}
	return sub
}
