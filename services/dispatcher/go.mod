module github.com/shoalproject/shoal/services/dispatcher

go 1.26.0

require (
	github.com/shoalproject/shoal/internal v0.0.0
	github.com/shoalproject/shoal/proto v0.0.0
)

replace (
	github.com/shoalproject/shoal/internal => ../../internal
	github.com/shoalproject/shoal/proto => ../../proto
)
