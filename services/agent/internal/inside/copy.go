package inside

import (
	"context"
	"errors"
	"io"
	"path"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

type copying = grpc.BidiStreamingServer[logsv1.CopyRequest, logsv1.CopyResponse]

// maxPath bounds a path.
const maxPath = 4096

// Copy implements ExecService.
func (s *Server) Copy(stream copying) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	id, err := s.running(stream.Context(), first.GetTask())
	if err != nil {
		return err
	}
	switch m := first.GetMessage().(type) {
	case *logsv1.CopyRequest_Put:
		if err := checkPath("put.dir", m.Put.GetDir()); err != nil {
			return err
		}
		return s.put(stream, id, m.Put)
	case *logsv1.CopyRequest_Get:
		if err := checkPath("get.path", m.Get.GetPath()); err != nil {
			return err
		}
		archive := writerFunc(func(b []byte) error {
			return stream.Send(&logsv1.CopyResponse{Message: &logsv1.CopyResponse_Data{Data: b}})
		})
		return s.runtime.Get(stream.Context(), id, m.Get, func(st *logsv1.CopyStat) error {
			return stream.Send(&logsv1.CopyResponse{Message: &logsv1.CopyResponse_Stat{Stat: st}})
		}, archive)
	}
	return errs.New(errs.Invalid, "the first request of copy must have put or get")
}

func checkPath(field, p string) error {
	var c errs.Collector
	c.Check(path.IsAbs(p) && len(p) <= maxPath, field, "must be an absolute path of at most %d bytes", maxPath)
	return c.Err("copy")
}

// put unpacks what the caller sends, as it comes.
func (s *Server) put(stream copying, id string, p *logsv1.CopyPut) error {
	// The first answer comes before the archive does: the way here is settled with it.
	err := stream.Send(&logsv1.CopyResponse{Message: &logsv1.CopyResponse_Stat{Stat: &logsv1.CopyStat{Name: path.Base(p.GetDir()), Dir: true}}})
	if err != nil {
		return err
	}
	archive, feed := io.Pipe()
	defer archive.Close()
	run.Async(stream.Context(), func(context.Context) (struct{}, error) {
		return struct{}{}, feed.CloseWithError(receive(stream, feed))
	})
	done, err := s.runtime.Put(stream.Context(), id, p, archive)
	if err != nil {
		return err
	}
	return stream.Send(&logsv1.CopyResponse{Message: &logsv1.CopyResponse_Done{Done: done}})
}

func receive(stream copying, feed io.Writer) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		data, ok := m.GetMessage().(*logsv1.CopyRequest_Data)
		if !ok || len(data.Data) > maxChunk {
			return errs.New(errs.Invalid, "copy: a request that is no part of the archive, or is larger than %d bytes", maxChunk)
		}
		if _, err := feed.Write(data.Data); err != nil {
			return err
		}
	}
}
