package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/cognito-extauthz/extauthz/internal/config"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

func policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Say what there is to know of the configured policy",
		Args:  usage(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var path string
	cache := &cobra.Command{
		Use:   "cache",
		Short: "Say by what decisions are remembered, or why they are not",
		Long: `cache compiles the policy of a configuration and says whether its decisions are remembered, and what
they depend on: each part of the input that the policy reads, with the first place where it does.
What is followed by ? counts only by whether it is there. If decisions are not remembered, it says
what keeps them from it. It connects to nothing, so it cannot tell of policies that come in bundles:
for those see /status of listen.admin.`,
		Example: "  extauthz policy cache --config extauthz.yaml",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(path)
			if err != nil {
				return err
			}
			if cfg.HasBundles() {
				return &wrongError{fmt.Errorf("%s: the policy comes in bundles, want one that is here", path)}
			}
			engine, err := newEngine(cmd.Context(), cfg, slog.New(slog.DiscardHandler))
			if err != nil {
				return &wrongError{fmt.Errorf("%s: %w", path, err)}
			}
			return printCaching(cmd.OutOrStdout(), cfg.DecisionCache.Enabled, engine.Caching())
		},
	}
	cache.Flags().StringVar(&path, "config", defaultConfig, "configuration file")
	cmd.AddCommand(cache)
	return cmd
}

func printCaching(out io.Writer, enabled bool, c policy.Caching) error {
	list := c.By
	var text strings.Builder
	switch {
	case len(c.Against) > 0:
		list = c.Against
		text.WriteString("Decisions are not remembered, because of\n")
	case !enabled:
		text.WriteString("Decisions are not remembered, because of decisionCache.enabled: false. They would be, by\n")
	default:
		text.WriteString("Decisions are remembered, by\n")
	}
	if len(list) == 0 {
		text.WriteString("  nothing: they are all the same\n")
	}
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, d := range list {
		fmt.Fprintf(table, "  %s\t%s\n", called(d), placeAndReason(d))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(out, text.String())
	return err
}

func called(d policy.Dependency) string {
	if d.Exists {
		return d.Name + "?"
	}
	return d.Name
}

func placeAndReason(d policy.Dependency) string {
	var text string
	if d.File != "" {
		text = fmt.Sprintf("%s:%d:%d", d.File, d.Row, d.Col)
	}
	if d.Why != "" {
		text += ": " + d.Why
	}
	return text
}

// decisionCacheBytes is zero, for none, or the bound.
func decisionCacheBytes(cfg *config.Config) int64 {
	if !cfg.DecisionCache.Enabled {
		return 0
	}
	return int64(cfg.DecisionCache.MaxBytes)
}

type decisionCacheStatus struct {
	Remembered bool     `json:"remembered"`
	By         []string `json:"by,omitempty"`
	Against    []string `json:"against,omitempty"`
	Decisions  int      `json:"decisions"`
	Bytes      uint64   `json:"bytes"`
	Hits       uint64   `json:"hits"`
	Misses     uint64   `json:"misses"`
	Bypassed   uint64   `json:"bypassed"`
}

func decisionCacheOf(engine *policy.Engine) *decisionCacheStatus {
	c, s := engine.Caching(), engine.CacheStatus()
	out := &decisionCacheStatus{
		Remembered: c.Remembered, Decisions: s.Entries, Bytes: s.Bytes, Hits: s.Hits, Misses: s.Misses, Bypassed: s.Bypassed,
	}
	for _, d := range c.By {
		out.By = append(out.By, called(d))
	}
	for _, d := range c.Against {
		out.Against = append(out.Against, called(d)+" "+placeAndReason(d))
	}
	return out
}

// observeDecisionCache shows what the engine remembers as metrics.
func (l *live) observeDecisionCache(meter metric.Meter) error {
	usable, err1 := meter.Int64ObservableGauge("extauthz.decision.cache.usable",
		metric.WithDescription("1 if decisions of the policy are remembered, 0 if it depends on more than the input, or on all of it."))
	decisions, err2 := meter.Int64ObservableGauge("extauthz.decision.cache.decisions",
		metric.WithDescription("Decisions of the policy that are remembered."))
	bytes, err3 := meter.Int64ObservableGauge("extauthz.decision.cache.size", metric.WithUnit("By"),
		metric.WithDescription("Memory that remembered decisions take, by estimate."))
	lookups, err4 := meter.Int64ObservableCounter("extauthz.decision.cache.lookups",
		metric.WithDescription("Decisions that were remembered (hit), were not (miss), or had too much to remember them by (bypass)."))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		g := l.now.Load()
		if !g.cfg.DecisionCache.Enabled {
			return nil
		}
		engine := g.engine
		s := engine.CacheStatus()
		o.ObserveInt64(usable, asInt(engine.Caching().Remembered))
		o.ObserveInt64(decisions, int64(s.Entries))
		o.ObserveInt64(bytes, int64(s.Bytes))
		o.ObserveInt64(lookups, int64(s.Hits), metric.WithAttributes(attribute.String("result", "hit")))
		o.ObserveInt64(lookups, int64(s.Misses), metric.WithAttributes(attribute.String("result", "miss")))
		o.ObserveInt64(lookups, int64(s.Bypassed), metric.WithAttributes(attribute.String("result", "bypass")))
		return nil
	}, usable, decisions, bytes, lookups)
	return err
}
