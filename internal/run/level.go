package run

import (
	"context"
	"log/slog"
)

// AtLevel is the logger with another lowest level, which may change while it is used. What the machine's own loggers do not
// write by default, which is all below Info, they write at a lower level.
func AtLevel(log *slog.Logger, lowest slog.Leveler) *slog.Logger {
	h := log.Handler()
	if l, ok := h.(levelHandler); ok {
		h = l.Handler
	}
	return slog.New(levelHandler{h, lowest})
}

// levelHandler drops what is below the level.
type levelHandler struct {
	slog.Handler
	lowest slog.Leveler
}

func (h levelHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= h.lowest.Level() && h.Handler.Enabled(ctx, l)
}

func (h levelHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return levelHandler{h.Handler.WithAttrs(attrs), h.lowest}
}

func (h levelHandler) WithGroup(name string) slog.Handler {
	return levelHandler{h.Handler.WithGroup(name), h.lowest}
}
