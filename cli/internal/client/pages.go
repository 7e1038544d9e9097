package client

import (
	"context"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

// Pages calls list with the token of each page until there is none.
func Pages(list func(token string) (next string, err error)) error {
	for token := ""; ; {
		next, err := list(token)
		if err != nil || next == "" {
			return err
		}
		if next == token {
			return errs.New(errs.Internal, "the list has no end: the same page came twice")
		}
		token = next
	}
}

// AllMembers lists members, whatever number of pages that takes.
func (c *Client) AllMembers(ctx context.Context, filters []string) (out []*controlv1.ListedMember, err error) {
	err = Pages(func(token string) (string, error) {
		resp, err := c.Members.ListMembers(ctx, &controlv1.ListMembersRequest{Filters: filters, PageToken: token})
		out = append(out, resp.GetMembers()...)
		return resp.GetNextPageToken(), err
	})
	return out, err
}

// AllNodes lists machines, whatever number of pages that takes.
func (c *Client) AllNodes(ctx context.Context, filters []string) (out []*controlv1.ListedNode, err error) {
	err = Pages(func(token string) (string, error) {
		resp, err := c.Nodes.ListNodes(ctx, &controlv1.ListNodesRequest{Filters: filters, PageToken: token})
		out = append(out, resp.GetNodes()...)
		return resp.GetNextPageToken(), err
	})
	return out, err
}
