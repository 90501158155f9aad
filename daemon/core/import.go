package core

import "cubicle/daemon/qube"

// volumeKey names a volume of a qube.
type volumeKey struct {
	qube   qube.UUID
	volume string
}

// importing is an import that has begun.
type importing struct {
	path string
	size int64
}
