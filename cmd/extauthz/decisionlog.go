package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/cognito-extauthz/extauthz/internal/asynclog"
	"github.com/cognito-extauthz/extauthz/internal/authz"
	"github.com/cognito-extauthz/extauthz/internal/config"
	"github.com/cognito-extauthz/extauthz/internal/decisionlog"
	"github.com/cognito-extauthz/extauthz/internal/decisionlog/opalog"
	"github.com/cognito-extauthz/extauthz/internal/opa"
)

// output is where the program writes.
type output struct {
	stdout io.Writer
	stderr *asynclog.Writer
}

// decisions is the decision log, with the queue and the file that are its own.
type decisions struct {
	log   *decisionlog.Log
	queue *asynclog.Queue // nil: that of standard error
	file  *decisionlog.File
	once  sync.Once
	err   error
}

// newDecisions opens the decision log.
func newDecisions(cfg *config.Config, rules decisionlog.Rules, source *opa.Source, log *slog.Logger, out output) (*decisions, error) {
	c := decisionlog.Config{
		Rules: rules, Logger: log,
		Path: strings.ReplaceAll(strings.TrimPrefix(cfg.Policy.Decision, "data."), ".", "/"),
	}
	d := new(decisions)
	switch cfg.DecisionLog.To {
	case config.LogToStdout:
		d.queue = asynclog.New(out.stdout, decisionlog.Limits).Queue
	case config.LogToFile:
		var err error
		file := cfg.DecisionLog.File
		if d.file, err = decisionlog.OpenFile(cfg.Path(file.Path), int64(file.MaxBytes), file.Keep); err != nil {
			return nil, fmt.Errorf("decisionLog.file: %w", err)
		}
		d.queue = asynclog.New(d.file, decisionlog.Limits).Queue
	case config.LogToOPA:
		d.log, d.queue = decisionlog.NewEvents(c, opalog.To(source.Manager(), source.Revisions))
		return d, nil
	default:
		d.log = decisionlog.New(out.stderr.Queue, c)
		return d, nil
	}
	d.log = decisionlog.New(d.queue, c)
	return d, nil
}

// reopen opens the file, if there is one, again, as those who rotate files themselves expect.
func (d *decisions) reopen() error {
	if d.file == nil {
		return nil
	}
	return d.file.Reopen()
}

// closeTime is how long what waits may take to be written at the end.
const closeTime = time.Second

// close writes what waits. It may be called more than once.
func (d *decisions) close(ctx context.Context) error {
	d.once.Do(func() {
		if d.queue == nil {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, closeTime)
		defer cancel()
		if d.err = d.queue.Close(ctx); d.err != nil {
			d.err = fmt.Errorf("decisionLog: not all that waited was written: %w", d.err)
			return // the file is still written to
		}
		if d.file != nil {
			d.err = d.file.Close()
		}
	})
	return d.err
}

// closeLate is for a start that went no further.
func (d *decisions) closeLate() { _ = d.close(context.Background()) }

// decisionLog says what is logged of which decisions.
func decisionLog(cfg *config.Config, to authz.DecisionRecorder) authz.DecisionLog {
	log := authz.DecisionLog{To: to, Ratios: make(map[authz.Outcome]float64), ConfigRevision: cfg.Revision()}
	for outcome, ratio := range cfg.DecisionLog.Ratios() {
		log.Ratios[authz.Outcome(outcome)] = ratio
	}
	for _, field := range cfg.DecisionLog.Include {
		kind, name, _ := strings.Cut(field, ".")
		switch decisionlog.Kind(kind) {
		case decisionlog.Headers:
			log.Headers = append(log.Headers, strings.ToLower(name))
		case decisionlog.Query:
			log.Query = append(log.Query, name)
		case decisionlog.Claims:
			log.Claims = append(log.Claims, name)
		}
	}
	return log
}

// observeLog shows what of the logs was lost.
func observeLog(meter metric.Meter, decisions *decisionlog.Log, service *asynclog.Writer) error {
	lost, err1 := meter.Int64ObservableCounter("extauthz.log.lost",
		metric.WithDescription("Lines of the service's own log, and decisions, that were dropped or could not be written."))
	failures, err2 := meter.Int64ObservableCounter("extauthz.decision.log.mask.failures",
		metric.WithDescription("Decisions that were logged without all that could have been masked, because a rule of data.system.log failed."))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(lost, int64(decisions.Lost()), metric.WithAttributes(attribute.String("log", "decisions")))
		o.ObserveInt64(lost, int64(service.LostLines()), metric.WithAttributes(attribute.String("log", "service")))
		o.ObserveInt64(failures, int64(decisions.MaskFailures()))
		return nil
	}, lost, failures)
	return err
}
