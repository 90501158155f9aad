package jail

import "unsafe"

// pointer is the address of b for a raw system call.
func pointer(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }
