package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/cognito-extauthz/extauthz/internal/asynclog"
	"github.com/cognito-extauthz/extauthz/internal/authz"
	"github.com/cognito-extauthz/extauthz/internal/config"
	"github.com/cognito-extauthz/extauthz/internal/decisionlog"
	"github.com/cognito-extauthz/extauthz/internal/opa"
	"github.com/cognito-extauthz/extauthz/internal/route"
	"github.com/cognito-extauthz/extauthz/internal/server"
	"github.com/cognito-extauthz/extauthz/internal/telemetry"
	"github.com/cognito-extauthz/extauthz/internal/unary"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

func serveCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Answer Envoy's checks until SIGTERM",
		Long: `serve answers ext_authz checks over gRPC on listen.grpc, and serves /livez, /readyz and /metrics over
HTTP on listen.metrics. It is ready when it has the keys of every pool, and ends on SIGTERM or
SIGINT: health turns NOT_SERVING, shutdown.delay passes, checks under way finish. A second signal
ends it at once. It logs JSON lines to standard error.

Every scalar of the configuration can be set by an environment variable too, such as
EXTAUTHZ__LISTEN__GRPC=0.0.0.0:9191.`,
		Example: "  extauthz serve --config extauthz.yaml",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(path)
			if err != nil {
				return err
			}
			out := asynclog.New(cmd.ErrOrStderr(), decisionlog.Limits)
			log := slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: cfg.Log.SlogLevel()}))
			limitMemory(log)
			err = serve(cmd.Context(), path, cfg, log, output{stdout: cmd.OutOrStdout(), stderr: out})
			closing, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), time.Second)
			defer cancel()
			return errors.Join(err, out.Close(closing))
		},
	}
	cmd.Flags().StringVar(&path, "config", defaultConfig, "configuration file")
	return cmd
}

// serve is the parts list of the program. It runs until ctx ends and everything is drained.
func serve(ctx context.Context, path string, cfg *config.Config, log *slog.Logger, out output) error {
	tel, err := telemetry.New(ctx, telemetry.Config{
		Version: programVersion(), TraceRate: cfg.Telemetry.TraceRate, TraceRatio: cfg.Telemetry.TraceRatio,
	})
	if err != nil {
		return err
	}
	defer closeTelemetry(tel, log)
	p, err := newParts(ctx, path, cfg, log)
	if err != nil {
		return err
	}
	if err := errors.Join(p.pools.observe(tel.Meter), p.observeBundles(tel.Meter), observePolicy(tel.Meter, p.engine), observeDecisionCache(tel.Meter, cfg, p.engine)); err != nil {
		return err
	}
	decisions, err := newDecisions(cfg, p, log, out)
	if err != nil {
		return &wrongError{fmt.Errorf("%s: %w", path, err)}
	}
	defer decisions.closeLate()
	if err := observeLog(tel.Meter, decisions.log, out.stderr); err != nil {
		return err
	}
	service, err := newService(cfg, p, decisions.log, log, tel)
	if err != nil {
		return err
	}
	srv, err := server.Listen(server.Config{
		GRPC: cfg.Listen.GRPC, Metrics: cfg.Listen.Metrics, Admin: cfg.Listen.Admin,
		TLS:            p.tls,
		Checker:        service,
		MessageBytes:   messageBytes(cfg),
		Checks:         cfg.Limits.ConcurrentChecks,
		MetricsHandler: tel.Metrics,
		Effective:      cfg.YAML,
		Status:         func() any { return p.status(cfg) },
		Delay:          cfg.Shutdown.Delay,
		Grace:          cfg.Shutdown.Timeout,
		Logger:         log,
	})
	if err != nil {
		return err
	}

	// These go on until the last check is answered, so not under ctx, whose end begins the drain.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { p.pools.run(background) })
	running.Go(func() { _ = p.engine.Run(background) }) // ends with background, without an error
	running.Go(func() { followHeap(background) })
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	var sourceErr error
	running.Go(func() {
		if sourceErr = p.runSource(background); sourceErr != nil {
			giveUp()
		}
	})
	go func() {
		if p.pools.await(ctx, cfg.Startup.KeysTimeout) && p.awaitPolicy(ctx, cfg) {
			srv.Ready()
			log.Info("ready")
		}
	}()
	announce(log, cfg, srv, p.engine)
	err = errors.Join(srv.Serve(ctx), decisions.close(background)) // before what it may send them with ends
	stop()
	running.Wait()
	return errors.Join(err, sourceErr)
}

// messageBytes is how long a CheckRequest may be: what the limits of its parts come to, path and host being headers too, and as
// much again as Envoy may say besides. What is longer is answered as what is over a limit is.
func messageBytes(cfg *config.Config) int {
	const besides = 1 << 20
	return 2*(cfg.Limits.HeaderBytes+cfg.Limits.PathBytes) + cfg.Limits.BodyBytes + besides
}

func closeTelemetry(tel *telemetry.Telemetry, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := tel.Close(ctx); err != nil {
		log.Warn("telemetry was not sent completely", "error", err)
	}
}

func newService(cfg *config.Config, p parts, decisions authz.DecisionRecorder, log *slog.Logger, tel *telemetry.Telemetry) (*authz.Service, error) {
	return authz.New(authz.Config{
		Authenticator:       p.pools.authenticator(),
		Authorizer:          p.engine,
		Routes:              p.routes,
		ClientName:          clientNames(cfg),
		Identity:            identity(cfg),
		Realm:               cfg.Realm,
		RemoveAuthorization: cfg.Upstream.Authorization == config.Remove,

		OPAEnvoy:               cfg.Policy.Dialect == config.DialectOPAEnvoy,
		AuthenticationOptional: cfg.Authentication == config.Optional,
		Limits: authz.Limits{
			PathBytes:        cfg.Limits.PathBytes,
			HeaderBytes:      cfg.Limits.HeaderBytes,
			BodyBytes:        cfg.Limits.BodyBytes,
			TokenBytes:       cfg.Limits.TokenBytes,
			ConcurrentChecks: cfg.Limits.ConcurrentChecks,
		},
		Log:    decisionLog(cfg, decisions),
		Logger: log,
		Meter:  tel.Meter,
		Tracer: tel.Tracer,
		Sample: tel.Sample,
	})
}

// announce says what is served, and aloud what is dangerous.
func announce(log *slog.Logger, cfg *config.Config, srv *server.Server, engine *policy.Engine) {
	grpc, metrics, admin := srv.Addrs()
	log.Info("serving", "version", programVersion(), "grpc", grpc, "metrics", metrics, "admin", admin,
		"config_revision", cfg.Revision(), "policy_revision", engine.Revision())
	for name, p := range cfg.Pools {
		if p.AnyClient {
			log.Warn("pool accepts the tokens of every app client", "pool", name)
		}
	}
	if cfg.Authentication == config.Optional {
		log.Warn("requests without a token reach the policy, which alone decides about them")
	}
}

// parts are what is made of a configuration and of the files that it names, before anything is served.
type parts struct {
	pools  *pools
	routes *route.Table
	engine *policy.Engine
	source *opa.Source // of policies; nil: none but the engine's own
	tls    *tls.Config // nil: none
}

// newParts reads and checks what the configuration at path names. An error is about that.
func newParts(ctx context.Context, path string, cfg *config.Config, log *slog.Logger) (p parts, err error) {
	defer func() {
		if err != nil {
			err = &wrongError{fmt.Errorf("%s: %w", path, err)}
		}
	}()
	if p.pools, err = newPools(cfg, log); err != nil {
		return p, err
	}
	if p.routes, err = route.NewTable(cfg.Rules()); err != nil {
		return p, err
	}
	if p.tls, err = serverTLS(cfg); err != nil {
		return p, fmt.Errorf("listen.tls: %w", err)
	}
	if p.engine, err = newEngine(ctx, cfg, log); err != nil {
		return p, err
	}
	if err = watchPolicy(ctx, cfg, p.pools.files, p.engine); err != nil {
		return p, err
	}
	p.source, err = newSource(ctx, cfg, p.engine, log)
	return p, err
}

func newEngine(ctx context.Context, cfg *config.Config, log *slog.Logger) (*policy.Engine, error) {
	dir := cfg.Path(cfg.Policy.Dir)
	if info, err := os.Stat(dir); dir != "" && (err != nil || !info.IsDir()) {
		return nil, fmt.Errorf("policy.dir: found %q, which is no directory (looked for %s), want one with *.rego files", cfg.Policy.Dir, dir)
	}
	engine, err := policy.New(ctx, policy.Config{
		Dir:             dir,
		LoadLater:       cfg.HasBundles(),
		Dialect:         policy.Dialect(cfg.Policy.Dialect),
		ExtauthzInput:   cfg.Policy.ExtauthzInput,
		Data:            tables(cfg),
		Decision:        cfg.Policy.Decision,
		Timeout:         cfg.Policy.Timeout,
		ReservedHeaders: identity(cfg).IdentityHeaders(),
		RequestHeaders:  cfg.Policy.RequestHeaders,
		Reasons:         cfg.Policy.Reasons,
		AllowBuiltins:   cfg.Policy.AllowBuiltins,
		CacheBytes:      decisionCacheBytes(cfg),
		Slow:            unary.Detach,
		Logger:          log,
	})
	var load *policy.LoadError
	if !errors.As(err, &load) {
		return engine, err
	}
	var lines strings.Builder
	for _, p := range load.Problems {
		lines.WriteString("\n" + strings.ReplaceAll(p.String(), "\n", "\n  "))
	}
	return nil, fmt.Errorf("policy.dir: the policy cannot be used%s", &lines)
}
