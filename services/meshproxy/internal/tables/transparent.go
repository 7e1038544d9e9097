package tables

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/match"
)

// transparent marks what containers send to a socket of this machine that has a stranger's address. Other marks stay.
func (f filter) transparent(add func(*nftables.Chain, ...match.Part)) {
	for _, number := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		add(f.known, match.Protocol(number), match.Part{
			&expr.Socket{Key: expr.SocketKeyTransparent, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}},
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
			&expr.Bitwise{
				SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(^uint32(kernel.TransparentFlag)),
				Xor: binaryutil.NativeEndian.PutUint32(kernel.TransparentFlag),
			},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
		})
	}
}
