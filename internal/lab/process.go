package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// A Process is a program that the lab started. Its standard output and error go to files in its directory, NAME.out and
// NAME.err. All methods are safe for concurrent use.
type Process struct {
	name string
	dir  string
	cmd  *exec.Cmd
	done chan struct{} // closed when the program has ended and err is set
	err  error         // of Wait
}

// startProcess starts cmd with its output in dir. On Linux the program dies with this one, so that a test binary that is
// killed leaves nothing running.
func startProcess(name, dir string, cmd *exec.Cmd) (*Process, error) {
	p := &Process{name: name, dir: dir, cmd: cmd, done: make(chan struct{})}
	stdout, err := os.Create(p.path("out"))
	if err != nil {
		return nil, fmt.Errorf("lab: %s: %w", name, err)
	}
	defer closeQuietly(stdout) // the program has its own descriptor
	stderr, err := os.Create(p.path("err"))
	if err != nil {
		return nil, fmt.Errorf("lab: %s: %w", name, err)
	}
	defer closeQuietly(stderr)

	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = attributes()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("lab: %s: %w", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID returns the program's process id, also after its end.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done returns a channel that is closed when the program has ended, by itself or by Stop or Kill.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stdout returns what the program has written to standard output so far.
func (p *Process) Stdout() string { return p.read("out") }

// Stderr returns what the program has written to standard error so far.
func (p *Process) Stderr() string { return p.read("err") }

// Stop sends SIGTERM and waits for the end. When ctx ends first it kills the program and says so. The error of a program
// that ended with another exit code than 0 is an [*exec.ExitError]. Stopping an ended program returns how it ended.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("lab: stop %s: %w", p.name, err)
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("lab: %s did not end after SIGTERM and was killed: %w", p.name, context.Cause(ctx))
	}
}

// Kill ends the program with SIGKILL and waits for its end, which the program can neither delay nor notice.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // fails only if it has ended already
	<-p.done
}

// exit describes how an ended program ended.
func (p *Process) exit() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

// lastWordsBytes is enough for a panic's first goroutine or Envoy's complaint about its configuration.
const lastWordsBytes = 2000

// lastWords returns the end of what the program wrote, for error messages.
func (p *Process) lastWords() string {
	text := strings.TrimSpace(p.Stdout() + p.Stderr())
	if text == "" {
		return "it wrote nothing"
	}
	if len(text) > lastWordsBytes {
		text = "…" + text[len(text)-lastWordsBytes:]
	}
	return "it wrote:\n" + text
}

func (p *Process) path(stream string) string { return filepath.Join(p.dir, p.name+"."+stream) }

func (p *Process) read(stream string) string {
	text, err := os.ReadFile(p.path(stream))
	if err != nil {
		return fmt.Sprintf("(%v)", err)
	}
	return string(text)
}

func closeQuietly(f *os.File) { _ = f.Close() }
