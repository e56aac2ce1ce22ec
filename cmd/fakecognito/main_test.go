package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"fakecognito": main})
}

// TestScripts runs testdata/script. Beside testscript's own commands there are:
//
//	start [flag...]           starts fakecognito in the background, on a free port, and sets $URL when it is ready
//	end SIGNAL                sends the signal, waits, wants the exit status 0, and writes stdout.txt and stderr.txt
//	http METHOD URL [user:password|- [form]]
//	                          sends a request; status, content type and body of the answer go to stdout. With a ! it
//	                          wants no answer. The certificate in cert.pem, if there is one, is trusted
//	payload                   prints the payload of the token in the last answer
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start":   cmdStart,
			"end":     cmdEnd,
			"http":    cmdHTTP,
			"payload": cmdPayload,
		},
		Setup: func(env *testscript.Env) error {
			env.Values[processKey{}] = &process{}
			return nil
		},
	})
}

type processKey struct{}

// process is the fakecognito that a script has started.
type process struct {
	cmd    *exec.Cmd
	stdout bytes.Buffer // complete once read is done
	stderr bytes.Buffer
	read   sync.WaitGroup
}

// begin starts the program and returns its URL when it says that it is ready.
func (p *process) begin(dir string, args ...string) (url string, err error) {
	p.cmd = exec.Command("fakecognito", args...)
	p.cmd.Dir = dir
	p.cmd.Stderr = &p.stderr
	pipe, err := p.cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := p.cmd.Start(); err != nil {
		return "", err
	}
	r := bufio.NewReader(pipe)
	first, err := r.ReadString('\n')
	url, ready := strings.CutPrefix(strings.TrimSpace(first), "ready ")
	if err != nil || !ready {
		_ = p.cmd.Wait()
		return "", fmt.Errorf("the first line is %q (%w), want ready and a URL; standard error:\n%s", first, err, &p.stderr)
	}
	p.stdout.WriteString(first)
	p.read.Go(func() { _, _ = io.Copy(&p.stdout, r) })
	return url, nil
}

// end sends the signal and waits.
func (p *process) end(signal os.Signal) (status int, err error) {
	if err := p.cmd.Process.Signal(signal); err != nil {
		return 0, err
	}
	p.read.Wait()
	err = p.cmd.Wait()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		err = nil
	}
	return p.cmd.ProcessState.ExitCode(), err
}

func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	p := ts.Value(processKey{}).(*process)
	url, err := p.begin(ts.Getenv("WORK"), append([]string{"-listen", "127.0.0.1:0"}, args...)...)
	ts.Check(err)
	ts.Setenv("URL", url)
	ts.Defer(func() {
		if p.cmd.ProcessState == nil {
			_, _ = p.end(os.Kill)
		}
	})
}

func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	p := ts.Value(processKey{}).(*process)
	signals := map[string]os.Signal{"SIGINT": syscall.SIGINT, "SIGTERM": syscall.SIGTERM}
	status, err := p.end(signals[args[0]])
	ts.Check(err)
	if status != exitOK {
		ts.Fatalf("exit status is %d, want %d", status, exitOK)
	}
	ts.Check(os.WriteFile(ts.MkAbs("stdout.txt"), p.stdout.Bytes(), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("stderr.txt"), p.stderr.Bytes(), 0o600))
}

func cmdHTTP(ts *testscript.TestScript, neg bool, args []string) {
	method, url, user, form := args[0], args[1], "-", ""
	if len(args) > 2 {
		user = args[2]
	}
	if len(args) > 3 {
		form = args[3]
	}
	req, err := http.NewRequest(method, url, strings.NewReader(form))
	ts.Check(err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if user != "-" {
		id, password, _ := strings.Cut(user, ":")
		req.SetBasicAuth(id, password)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	if cert, err := os.ReadFile(ts.MkAbs("cert.pem")); err == nil {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(cert)
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if neg {
		if err == nil {
			ts.Fatalf("status is %d, want no answer", res.StatusCode)
		}
		return
	}
	ts.Check(err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%d %s\n%s\n", res.StatusCode, res.Header.Get("Content-Type"), bytes.TrimSpace(body))
	ts.Check(os.WriteFile(ts.MkAbs("body"), body, 0o600))
}

func cmdPayload(ts *testscript.TestScript, neg bool, args []string) {
	var answer struct {
		AccessToken string `json:"access_token"`
		Token       string `json:"token"`
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("body")), &answer))
	parts := strings.Split(answer.AccessToken+answer.Token, ".")
	if len(parts) != 3 {
		ts.Fatalf("body holds no token")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "%s\n", payload)
}

// TestWriteFails: nobody reads the addresses, so the program would be of no use.
func TestWriteFails(t *testing.T) {
	var stderr bytes.Buffer
	if got := run([]string{"-listen", "127.0.0.1:0"}, brokenPipe{}, &stderr); got != exitFailed {
		t.Errorf("exit status is %d, want %d", got, exitFailed)
	}
	if want := "fakecognito: error: write to standard output: io: read/write on closed pipe\n"; !strings.HasSuffix(stderr.String(), want) {
		t.Errorf("standard error is\n%s\nwant at its end\n%s", &stderr, want)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestDoc holds docs/fakecognito.md to the program: its help text is the program's, and its sessions give what they say.
// The port differs, and what changes from run to run stands as "…" in the page.
func TestDoc(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "fakecognito.md"))
	if err != nil {
		t.Fatal(err)
	}
	var sessions int
	var p process
	url := ""
	for _, block := range codeBlocks(string(page)) {
		switch block.language {
		case "text":
			if !strings.HasPrefix(block.text, "cognitoctl ") && block.text != help { // what cognitoctl does is tested there
				t.Errorf("the page's help is\n%s\nwant that of help.go", block.text)
			}
			continue
		case "console":
		default:
			t.Errorf("the page has a block of %q, want console, or text for the help", block.language)
			continue
		}
		lab.NeedCurl(t)
		for command, want := range commands(block.text) {
			sessions++
			if args, ok := strings.CutPrefix(command, "fakecognito"); ok {
				// The page starts one and leaves it running.
				if url, err = p.begin(t.TempDir(), append(strings.Fields(args), "-listen", "127.0.0.1:0")...); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _, _ = p.end(os.Kill) })
				continue
			}
			out, err := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(command, "http://127.0.0.1:9199", url)).Output()
			if err != nil {
				t.Errorf("%s: %v", command, err)
			}
			got := strings.ReplaceAll(string(out), url, "http://127.0.0.1:9199")
			if !matches(want, got) {
				t.Errorf("%s\n got %s\nwant %s", command, got, want)
			}
		}
	}
	if sessions < 5 {
		t.Errorf("the page has %d commands, want 5 or more: is it still read right?", sessions)
	}
}

type codeBlock struct{ language, text string }

func codeBlocks(page string) (blocks []codeBlock) {
	for i, part := range strings.Split(page, "```") {
		if i%2 == 1 {
			language, text, _ := strings.Cut(part, "\n")
			blocks = append(blocks, codeBlock{language, text})
		}
	}
	return blocks
}

// commands yields each command of a console session and its output.
func commands(session string) func(yield func(command, output string) bool) {
	return func(yield func(string, string) bool) {
		for _, part := range strings.Split("\n"+session, "\n$ ")[1:] {
			command, output, _ := strings.Cut(part, "\n")
			if !yield(command, output) {
				return
			}
		}
	}
}

// matches tells whether got is want, in which … stands for any text within a line.
func matches(want, got string) bool {
	want, got = strings.TrimSpace(want), strings.TrimSpace(got)
	for i, piece := range strings.Split(want, "…") {
		at := strings.Index(got, piece)
		if at < 0 || i == 0 && at > 0 || strings.Contains(got[:at], "\n") {
			return false
		}
		got = got[at+len(piece):]
	}
	return got == "" || strings.HasSuffix(want, "…") && !strings.Contains(got, "\n")
}
