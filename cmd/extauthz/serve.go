package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/cognito-extauthz/extauthz/internal/asynclog"
	"github.com/cognito-extauthz/extauthz/internal/authz"
	"github.com/cognito-extauthz/extauthz/internal/config"
	"github.com/cognito-extauthz/extauthz/internal/decisionlog"
	"github.com/cognito-extauthz/extauthz/internal/reload"
	"github.com/cognito-extauthz/extauthz/internal/route"
	"github.com/cognito-extauthz/extauthz/internal/server"
	"github.com/cognito-extauthz/extauthz/internal/telemetry"
	"github.com/cognito-extauthz/extauthz/internal/unary"
	"github.com/cognito-extauthz/extauthz/pkg/policy"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
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

The configuration and the files that it names are read again when they change, all of them or
nothing: one that is wrong changes nothing. SIGHUP has them looked at now.

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
	l := &live{path: path, log: log, tel: tel, files: reload.New(log), fetching: make(map[*validator.RemoteKeys]context.CancelFunc)}
	first, err := newParts(ctx, path, cfg, log, nil)
	if err != nil {
		return err
	}
	l.bundles, err = newBundles(ctx, cfg, first.engine, log)
	if err != nil {
		return wrongAbout(path, err)
	}
	serverTLS, err := newTLS(cfg, l.files)
	if err != nil {
		return wrongAbout(path, err)
	}
	decisions, err := newDecisions(cfg, l, l.bundles.source, log, out)
	if err != nil {
		return wrongAbout(path, err)
	}
	defer decisions.closeLate()
	l.to = decisions.log
	if l.metrics, err = authz.NewMetrics(tel.Meter); err != nil {
		return err
	}
	l.now.Store(l.generation(cfg, first))
	if err := errors.Join(l.observe(tel.Meter), observeLog(tel.Meter, decisions.log, out.stderr)); err != nil {
		return err
	}
	srv, err := server.Listen(server.Config{
		GRPC: cfg.Listen.GRPC, Metrics: cfg.Listen.Metrics, Admin: cfg.Listen.Admin,
		TLS:            serverTLS,
		Checker:        l,
		MessageBytes:   messageBytes(cfg),
		Checks:         cfg.Limits.ConcurrentChecks,
		MetricsHandler: tel.Metrics,
		Effective:      func() []byte { return l.now.Load().cfg.YAML() },
		Status:         func() any { return l.status() },
		Delay:          cfg.Shutdown.Delay,
		Grace:          cfg.Shutdown.Timeout,
		Logger:         log,
	})
	if err != nil {
		return err
	}
	if err := observeConnections(tel.Meter, srv); err != nil {
		return err
	}

	// These go on until the last check is answered, so not under ctx, whose end begins the drain.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	l.start(background)
	var sourceErr error
	l.running.Go(func() {
		if sourceErr = l.bundles.run(background); sourceErr != nil {
			giveUp()
		}
	})
	hangup := onHangup(func() {
		l.look()
		if err := decisions.reopen(); err != nil {
			log.Warn("decision log not closed", "error", err)
		}
	})
	go func() {
		if l.awaitKeys(ctx) && l.bundles.await(ctx, cfg) {
			srv.Ready()
			log.Info("ready")
		}
	}()
	announce(log, cfg, srv, first.engine)
	err = srv.Serve(ctx)
	hangup()
	err = errors.Join(err, decisions.close(background)) // before what it may send them with ends
	stop()
	l.running.Wait()
	return errors.Join(err, sourceErr)
}

// onHangup has f called for each SIGHUP, which would end the process otherwise.
func onHangup(f func()) (end func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			case <-hangup:
				f()
			}
		}
	}()
	return func() {
		signal.Stop(hangup)
		close(stop)
		<-ended
	}
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

func newService(cfg *config.Config, p parts, decisions authz.DecisionRecorder, log *slog.Logger, tel *telemetry.Telemetry, metrics *authz.Metrics) *authz.Service {
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
		Log:     decisionLog(cfg, decisions),
		Logger:  log,
		Metrics: metrics,
		Tracer:  tel.Tracer,
		Sample:  tel.Sample,
	})
}

// announce says what is served.
func announce(log *slog.Logger, cfg *config.Config, srv *server.Server, engine *policy.Engine) {
	grpc, metrics, admin := srv.Addrs()
	log.Info("serving", "version", programVersion(), "grpc", grpc, "metrics", metrics, "admin", admin,
		"config_revision", cfg.Revision(), "policy_revision", engine.Revision())
	warn(log, cfg)
}

// warn says aloud what is dangerous.
func warn(log *slog.Logger, cfg *config.Config) {
	for name, p := range cfg.Pools {
		if p.AnyClient {
			log.Warn("pool accepts the tokens of every app client", "pool", name)
		}
	}
	if cfg.Authentication == config.Optional {
		log.Warn("requests without a token reach the policy, which alone decides about them")
	}
}

// parts are what is made of a configuration and of the files that it names, to decide by.
type parts struct {
	pools  *pools
	routes *route.Table
	engine *policy.Engine
}

// newParts reads and checks what the configuration at path names. An error is about that. Of the pools of before, which may be
// nil, it takes over the keys.
func newParts(ctx context.Context, path string, cfg *config.Config, log *slog.Logger, before *pools) (p parts, err error) {
	defer func() {
		if err != nil {
			err = wrongAbout(path, err)
		}
	}()
	if p.pools, err = newPools(cfg, log, before); err != nil {
		return p, err
	}
	if p.routes, err = route.NewTable(cfg.Rules()); err != nil {
		return p, err
	}
	if p.engine, err = newEngine(ctx, cfg, log); err != nil {
		return p, err
	}
	return p, watchPolicy(ctx, cfg, p.pools.files, p.engine)
}

// wrongAbout is an error about the configuration at path.
func wrongAbout(path string, err error) error { return &wrongError{fmt.Errorf("%s: %w", path, err)} }

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
