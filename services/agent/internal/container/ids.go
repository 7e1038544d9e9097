package container

import "github.com/shoalproject/shoal/internal/errs"

// IDCount is how many user and group ids a container with a user namespace of its own has. 65535 is nobody in most images.
const IDCount = 65536

// IDs is the range of the machine's user and group ids that a container's 0 to 65535 stand for. The zero value: its ids are the
// machine's own.
type IDs struct{ First uint32 }

// Mapped says whether the container has a user namespace of its own.
func (r IDs) Mapped() bool { return r.First != 0 }

// Outside is the id on the machine of one in the container. Invalid: it is beyond the range.
func (r IDs) Outside(id uint32) (uint32, error) {
	switch {
	case !r.Mapped():
		return id, nil
	case id >= IDCount:
		return 0, errs.New(errs.Invalid, "id %d is not among the %d of its user namespace", id, IDCount)
	}
	return r.First + id, nil
}

// nobody is whom an id beyond a user namespace is shown as (proc(5), overflowuid).
const nobody = 65534

// Inside is the id in the container of one on the machine.
func (r IDs) Inside(id uint32) uint32 {
	switch {
	case !r.Mapped():
		return id
	case id < r.First || id-r.First >= IDCount:
		return nobody
	}
	return id - r.First
}
