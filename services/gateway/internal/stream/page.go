package stream

import (
	"encoding/base64"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

const (
	maxPage = 1000
	// maxPageBytes bounds the volumes of a page, encoded, far below what a message may have; one that is larger is a page of its own.
	maxPageBytes = 2 << 20
)

// keyOf is what volumes are sorted by. A name and a hostname have no NUL in them.
func keyOf(v *logsv1.ListedVolume) string {
	return strings.Join([]string{v.GetVolume().GetName(), v.GetHostname(), v.GetNodeId()}, "\x00")
}

// pageOf cuts a sorted list: what comes behind the token, which is the key of the last page's end, so that volumes that come and go
// in between move nothing.
func pageOf(all []*logsv1.ListedVolume, size int32, token string) (page []*logsv1.ListedVolume, next string, err error) {
	after, err := base64.RawURLEncoding.DecodeString(token)
	var c errs.Collector
	c.Check(err == nil, "page_token", "is none that this list has given")
	c.Check(size >= 0 && size <= maxPage, "page_size", "is %d, at most %d are given at once", size, maxPage)
	if err := c.Err("list volumes"); err != nil {
		return nil, "", err
	}
	if size == 0 {
		size = maxPage
	}
	bytes := 0
	for _, v := range all {
		if token != "" && keyOf(v) <= string(after) {
			continue
		}
		bytes += proto.Size(v)
		if len(page) > 0 && (len(page) == int(size) || bytes > maxPageBytes) {
			return page, base64.RawURLEncoding.EncodeToString([]byte(keyOf(page[len(page)-1]))), nil
		}
		page = append(page, v)
	}
	return page, "", nil
}
