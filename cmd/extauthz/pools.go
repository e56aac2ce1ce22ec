package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"

	"github.com/cognito-extauthz/extauthz/internal/authz"
	"github.com/cognito-extauthz/extauthz/internal/config"
	"github.com/cognito-extauthz/extauthz/internal/reload"
	"github.com/cognito-extauthz/extauthz/internal/unary"
	"github.com/cognito-extauthz/extauthz/pkg/validator"
)

// pools holds the validator and what keeps its keys and its denylist fresh.
type pools struct {
	validator *validator.Validator
	cache     *validator.Cached                // nil: none
	remote    map[string]*validator.RemoteKeys // by pool name; pools whose keys are in a file are not here
	sources   map[keySource]*validator.RemoteKeys
	keyed     int // how many pools have their keys from a file
	files     *reload.Watcher
}

// A keySource is all that fetching a pool's keys depends on.
type keySource struct {
	pool, url string
	jwks      config.JWKS
	roots     string // the content of jwks.caFile
}

// newPools makes them of a configuration. Keys that those of before fetch in the same way stay: nil is none.
func newPools(cfg *config.Config, log *slog.Logger, before *pools) (*pools, error) {
	p := &pools{remote: make(map[string]*validator.RemoteKeys), sources: make(map[keySource]*validator.RemoteKeys), files: reload.New(log)}
	configs := make([]validator.Config, 0, len(cfg.Pools))
	for name, pool := range cfg.Pools {
		keys, err := p.keys(cfg, name, pool, log, before)
		if err != nil {
			return nil, fmt.Errorf("pools.%s: %w", name, err)
		}
		configs = append(configs, poolConfig(cfg, name, pool, keys))
	}
	var err error
	if p.validator, err = validator.New(configs...); err != nil {
		return nil, err
	}
	if err := p.denylist(cfg, log); err != nil {
		return nil, err
	}
	if c := cfg.TokenCache; c.Enabled {
		p.cache, err = validator.NewCached(p.validator, validator.CacheConfig{
			Bytes: int64(c.MaxBytes), Entries: int64(c.MaxEntries), Refusals: int64(c.MaxRefusals),
		})
	}
	return p, err
}

// authenticator is the cache, if there is one, and else the validator.
func (p *pools) authenticator() authz.Authenticator {
	if p.cache != nil {
		return p.cache
	}
	return p.validator
}

// denylist reads the denylist, and has it read again when it changes.
func (p *pools) denylist(cfg *config.Config, log *slog.Logger) error {
	if cfg.Denylist.File == "" {
		return nil
	}
	path := cfg.Path(cfg.Denylist.File)
	err := p.files.Add(reload.File{Name: "denylist.file", Path: path, Use: func(text []byte) error {
		entries, err := cfg.ParseDenylist(path, text)
		if err != nil {
			return err
		}
		list := make([]validator.Revocation, len(entries))
		for i, e := range entries {
			if e.ClientID != "" && !accepts(cfg, e.Pool, e.ClientID) {
				// No mistake if the pool's list has lost the client too; else one that lets the client go on.
				log.Warn("denylist has a client that its pool does not accept anyway: is the id, or the pool, another?", "client_id", e.ClientID, "pool", e.Pool)
			}
			list[i] = validator.Revocation{
				Pool: e.Pool, ClientID: e.ClientID, TokenID: e.TokenID, Subject: e.Subject, IssuedBefore: e.IssuedBeforeTime(), Note: e.Note,
			}
		}
		return p.validator.SetDenylist(list)
	}})
	if err != nil {
		return fmt.Errorf("denylist.file: %w", err)
	}
	return nil
}

func poolConfig(cfg *config.Config, name string, pool config.Pool, keys validator.KeySet) validator.Config {
	c := validator.Config{
		Name:           name,
		Issuers:        pool.Issuers(),
		AllowAnyClient: pool.AnyClient,
		Audience:       pool.Audience,
		RequiredScopes: pool.RequiredScopes,
		MachinesOnly:   pool.MachinesOnly,
		Leeway:         pool.Leeway,
		ExpLeeway:      pool.ExpLeeway,
		Keys:           keys,
		Slow:           unary.Compute, // if keys have to be waited for, the watchdog sees it
	}
	if pool.Leeway == 0 {
		c.Leeway = -1 // none, where zero would mean the default
	}
	if pool.ScopeMatch == config.MatchAny {
		c.ScopeMatch = validator.MatchAny
	}
	for _, use := range pool.TokenUse {
		c.TokenUses = append(c.TokenUses, validator.TokenUse(use))
	}
	for _, client := range pool.Clients {
		c.ClientIDs = append(c.ClientIDs, cfg.Clients[client].ID)
	}
	return c
}

func (p *pools) keys(cfg *config.Config, name string, pool config.Pool, log *slog.Logger, before *pools) (validator.KeySet, error) {
	if pool.JWKSFile != "" {
		p.keyed++
		return p.fileKeys(cfg, name, pool, log)
	}
	roots, text, err := loadRoots(cfg.Path(pool.JWKS.CAFile))
	if err != nil {
		return nil, fmt.Errorf("jwks.caFile: %w", err)
	}
	source := keySource{pool: name, url: pool.KeysURL(), jwks: pool.JWKS, roots: text}
	var remote *validator.RemoteKeys
	if before != nil {
		remote = before.sources[source]
	}
	if remote == nil {
		if remote, err = fetchedKeys(cfg, source, roots, log); err != nil {
			return nil, err
		}
	}
	p.remote[name], p.sources[source] = remote, remote
	return remote, nil
}

func fetchedKeys(cfg *config.Config, from keySource, roots *x509.CertPool, log *slog.Logger) (*validator.RemoteKeys, error) {
	seed, err := seedKeys(cfg, from, log)
	if err != nil {
		return nil, fmt.Errorf("jwks.seedFile: %w", err)
	}
	return validator.NewRemoteKeys(validator.RemoteKeysConfig{
		URL:         from.url,
		MaxAge:      from.jwks.MaxAge,
		MinInterval: from.jwks.MinInterval,
		MaxStale:    from.jwks.MaxStale,
		Timeout:     from.jwks.Timeout,
		Seed:        seed,
		TLS:         &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		Logger:      log.With("pool", from.pool),
	})
}

// fileKeys reads a pool's keys from its file, and has it read again when it changes.
func (p *pools) fileKeys(cfg *config.Config, name string, pool config.Pool, log *slog.Logger) (validator.KeySet, error) {
	var keys *validator.ReplaceableKeys
	err := p.files.Add(reload.File{Name: "pools." + name + ".jwksFile", Path: cfg.Path(pool.JWKSFile), Use: func(text []byte) error {
		set, err := parseKeys(text, name, pool.JWKSFile, log)
		if err != nil {
			return err
		}
		if keys == nil {
			keys, err = validator.NewReplaceableKeys(set)
			return err
		}
		return keys.Replace(set)
	}})
	if err != nil {
		return nil, fmt.Errorf("jwksFile: %w", err)
	}
	return keys, nil
}

// seedKeys reads the keys that a pool begins with; nil if it has no file of them.
func seedKeys(cfg *config.Config, from keySource, log *slog.Logger) (validator.StaticKeys, error) {
	if from.jwks.SeedFile == "" {
		return nil, nil
	}
	text, err := reload.Read(cfg.Path(from.jwks.SeedFile))
	if err != nil {
		return nil, err
	}
	return parseKeys(text, from.pool, from.jwks.SeedFile, log)
}

func parseKeys(text []byte, pool, file string, log *slog.Logger) (validator.StaticKeys, error) {
	keys, problems, err := validator.ParseJWKS(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(problems) > 0 {
		log.Warn("jwks has keys that are left out", "pool", pool, "file", file, "problems", fmt.Sprint(problems))
	}
	return keys, nil
}

// loadRoots reads certificate authorities, and returns the file's text as well; without a file it returns nil, which means the
// system's.
func loadRoots(file string) (roots *x509.CertPool, text string, err error) {
	if file == "" {
		return nil, "", nil
	}
	pem, err := reload.Read(file)
	if err != nil {
		return nil, "", err
	}
	roots = x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, "", fmt.Errorf("%s has no certificate, want PEM", file)
	}
	return roots, string(pem), nil
}

// ready returns how many of all pools have keys.
func (p *pools) ready() (have, all int) {
	have = p.keyed
	for _, keys := range p.remote {
		select {
		case <-keys.Ready():
			have++
		default:
		}
	}
	return have, p.keyed + len(p.remote)
}

// accepts reports whether a pool, or any pool if the name is empty, accepts a client.
func accepts(cfg *config.Config, name, clientID string) bool {
	for poolName, pool := range cfg.Pools {
		isClient := func(c string) bool { return cfg.Clients[c].ID == clientID }
		if (name == "" || name == poolName) && (pool.AnyClient || slices.ContainsFunc(pool.Clients, isClient)) {
			return true
		}
	}
	return false
}

// clientNames returns the names of app clients. A client is a pool and an id: the same id in two pools is two.
func clientNames(cfg *config.Config) func(pool, clientID string) string {
	type client struct{ pool, id string }
	names := make(map[client]string)
	for name, pool := range cfg.Pools {
		for _, c := range pool.Clients {
			names[client{name, cfg.Clients[c].ID}] = c
		}
	}
	return func(pool, clientID string) string { return names[client{pool, clientID}] }
}

func identity(cfg *config.Config) authz.Identity {
	return authz.Identity{
		Prefix:   cfg.IdentityHeaders.Prefix,
		MaxBytes: cfg.IdentityHeaders.MaxBytes,
		Claims:   cfg.IdentityHeaders.Claims,
	}
}
