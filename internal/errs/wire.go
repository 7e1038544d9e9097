package errs

import (
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Encode writes how a call that is carried inside another stream ended, as an encoded google.rpc.Status; nil is OK.
func Encode(err error) []byte {
	s := &spb.Status{Code: int32(codes.OK)}
	if err != nil {
		s = status.Convert(ToStatus(err)).Proto()
	}
	raw, err := proto.Marshal(s)
	if err != nil { // a text that is no UTF-8
		return Encode(New(Internal, "the error's text can't be sent"))
	}
	return raw
}

// Decode is the way back.
func Decode(raw []byte) error {
	var s spb.Status
	if err := proto.Unmarshal(raw, &s); err != nil {
		return New(Internal, "how the call ended can't be read: %w", err)
	}
	return FromStatus(status.ErrorProto(&s))
}
