package lab

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
)

// ExtauthzConfig says how to run the extauthz program.
type ExtauthzConfig struct {
	Binary     string   // path of the program. Required; see BuildExtauthz
	ConfigFile string   // its configuration. Required
	Metrics    string   // host and port of its listen.metrics, where /readyz is. Required
	Env        []string // "NAME=value" pairs on top of this process's environment
	Dir        string   // its working directory, which gets extauthz.out and extauthz.err. Must exist. Required
}

// An Extauthz is the program, running.
type Extauthz struct {
	*Process
	Metrics string // host and port of /metrics, /livez and /readyz
}

// StartExtauthz runs `extauthz serve --config FILE` and returns when /readyz answers 200. ctx bounds the start alone: the
// caller must end the program with Stop, which drains, or with Kill.
func StartExtauthz(ctx context.Context, cfg ExtauthzConfig) (*Extauthz, error) {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), cfg.Binary, "serve", "--config", cfg.ConfigFile)
	cmd.Env = append(os.Environ(), cfg.Env...)
	cmd.Dir = cfg.Dir
	p, err := startProcess("extauthz", cfg.Dir, cmd)
	if err != nil {
		return nil, err
	}
	x := &Extauthz{Process: p, Metrics: cfg.Metrics}
	if err := poll(ctx, p, x.ready); err != nil {
		x.Kill()
		return nil, err
	}
	return x, nil
}

func (x *Extauthz) ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+x.Metrics+"/readyz", http.NoBody)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // one word; without it the status says enough
		return fmt.Errorf("/readyz: %s: %s", resp.Status, text)
	}
	return nil
}

// BuildExtauthz compiles cmd/extauthz of this project into dir and returns the program's path. With race it has the race
// detector, which makes it report a data race on standard error and end with exit code 66.
func BuildExtauthz(ctx context.Context, dir string, race bool) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "extauthz")
	args := []string{"build", "-o", binary}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/extauthz")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("lab: build extauthz: %w\n%s", err, out)
	}
	return binary, nil
}
