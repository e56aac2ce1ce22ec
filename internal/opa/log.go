package opa

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/open-policy-agent/opa/v1/logging"
)

// A logger gives OPA's log lines to ours.
type logger struct {
	log  *slog.Logger
	hide func(string) string
}

func (l *logger) Debug(format string, a ...any) { l.line(slog.LevelDebug, format, a) }
func (l *logger) Info(format string, a ...any)  { l.line(slog.LevelInfo, format, a) }
func (l *logger) Warn(format string, a ...any)  { l.line(slog.LevelWarn, format, a) }
func (l *logger) Error(format string, a ...any) { l.line(slog.LevelError, format, a) }

func (l *logger) line(level slog.Level, format string, a []any) {
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	text := format
	if len(a) > 0 {
		text = fmt.Sprintf(format, a...)
	}
	l.log.Log(context.Background(), level, "opa", "says", strings.TrimSpace(l.hide(text)))
}

// WithFields keeps those fields that say which plugin and which bundle. Others may hold headers, answers and decisions.
func (l *logger) WithFields(fields map[string]any) logging.Logger {
	log := l.log
	for field, name := range map[string]string{"plugin": "plugin", "name": "bundle", "err": "error"} {
		if value, ok := fields[field]; ok {
			log = log.With(name, l.hide(fmt.Sprint(value)))
		}
	}
	return &logger{log: log, hide: l.hide}
}

// GetLevel is never debug: OPA then dumps requests and answers.
func (l *logger) GetLevel() logging.Level { return logging.Info }

// SetLevel does nothing: our own configuration says what is logged.
func (l *logger) SetLevel(logging.Level) {}
