package interop

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/cognito-extauthz/extauthz/pkg/cognito/login"
)

// chromium starts a browser without a screen, which reaches nothing but this machine, and ends with the test.
func chromium(t *testing.T) context.Context {
	t.Helper()
	opts := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(filepath.Join(installed(t), "bin", "chromium")),
		chromedp.Headless, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1, EXCLUDE [::1]"),
	}
	if os.Geteuid() == 0 {
		opts = append(opts, chromedp.NoSandbox) // Chromium does not start as root with it
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	t.Cleanup(func() { _ = chromedp.Cancel(ctx) }) // waits for it, so that its folder can be removed
	return ctx
}

// A pendingLogin is one that waits for a browser.
type pendingLogin struct {
	address chan string // where to sign in
	tokens  chan *login.Tokens
	err     chan error
}

func beginLogin(t *testing.T, cfg login.Config) *pendingLogin {
	t.Helper()
	p := &pendingLogin{make(chan string, 1), make(chan *login.Tokens, 1), make(chan error, 1)}
	cfg.OpenBrowser = func(_ context.Context, address string) error {
		p.address <- address
		return nil
	}
	a := newAuthenticator(t, cfg)
	go func() {
		tokens, err := a.Login(t.Context())
		p.tokens <- tokens
		p.err <- err
	}()
	return p
}

// arrives waits until the browser shows the page with this title, over all redirects, and returns what is on it.
func arrives(browser context.Context, t *testing.T, title string) (text string) {
	t.Helper()
	var seen string
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		// While one page makes way for another there is nothing to ask.
		step, cancel := context.WithTimeout(browser, time.Second)
		seen, _ = chromedp.Run(step, chromedp.Title())
		if seen == title {
			text, _ = chromedp.Run(step, chromedp.Evaluate[string]("document.body.innerText"))
		}
		cancel()
		if strings.Contains(text, title) {
			tick.Stop()
			return text
		}
		select {
		case <-tick.C:
		case <-browser.Done():
			t.Fatalf("the browser shows %q at last, want %q", seen, title)
		}
	}
}

func do(browser context.Context, t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(browser, steps...); err != nil {
		t.Fatal(err)
	}
}

// signInAs fills in the provider's forms.
func signInAs(name string) []chromedp.Action[chromedp.Void] {
	return []chromedp.Action[chromedp.Void]{
		chromedp.SendKeys(`input[name=login]`, name),
		chromedp.SendKeys(`input[name=password]`, "x"),
		chromedp.Click(`button[type=submit]`),
		chromedp.WaitVisible(`input[name=prompt][value=consent] + button`),
		chromedp.Click(`button[type=submit]`),
	}
}

// A person signs in with a real browser at a provider that others have written, and sees that it is done.
func TestBrowserLogin(t *testing.T) {
	browser := chromium(t)
	p := beginLogin(t, oidcProvider(t))
	do(browser, t, chromedp.Navigate(<-p.address))
	do(browser, t, signInAs("jane")...)
	arrives(browser, t, "You are signed in")
	if err := <-p.err; err != nil {
		t.Fatal(err)
	}
	if claims, err := (<-p.tokens).IDClaims(); err != nil || claims.Username != "jane" {
		t.Errorf("the tokens are those of %v, %v", claims, err)
	}
	// The page's own style got past its policy, and nothing else would.
	width, err := chromedp.Run(browser, chromedp.Evaluate[string](`getComputedStyle(document.body).maxWidth`))
	if err != nil || width == "none" {
		t.Errorf("the page has max-width %q, %v, want its style", width, err)
	}
	scripts, err := chromedp.Run(browser, chromedp.Evaluate[int](`document.scripts.length + document.links.length + document.images.length`))
	if err != nil || scripts != 0 {
		t.Errorf("the page has %d scripts, links and images, %v", scripts, err)
	}
}

// A person says no.
func TestBrowserDenies(t *testing.T) {
	browser := chromium(t)
	p := beginLogin(t, oidcProvider(t))
	do(browser, t, chromedp.Navigate(<-p.address), chromedp.Click(`.login-help a`))
	if text := arrives(browser, t, "You are not signed in"); !strings.Contains(text, "access_denied: End-User aborted interaction") {
		t.Errorf("the browser shows %q, want the reason", text)
	}
	var denied *login.AuthorizationError
	if err := <-p.err; !errors.As(err, &denied) || denied.Code != "access_denied" {
		t.Errorf("got %v, want access_denied", err)
	}
}

// A page of somebody else, in the same browser, sends to the waiting login whatever a page can send. None of it ends the login,
// and none of it is read by that page.
func TestBrowserWithAHostilePage(t *testing.T) {
	browser := chromium(t)
	p := beginLogin(t, oidcProvider(t))
	address := <-p.address
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	callback := u.Query().Get("redirect_uri")
	hostile := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, hostilePage, callback+"?code=x&state=y", callback)
	}))
	defer hostile.Close()
	do(browser, t, chromedp.Navigate(hostile.URL))
	if text := arrives(browser, t, "Done"); !strings.Contains(text, "0 answers read") {
		t.Errorf("the page says %q", text)
	}
	// It may even take the whole window there.
	for _, query := range []string{"code=x&state=y", "error=access_denied", "error=access_denied&state=y", ""} {
		do(browser, t, chromedp.Navigate(hostile.URL), chromedp.Navigate(callback+"?"+query))
		arrives(browser, t, "This is not an answer to the login that waits here")
	}
	select {
	case err := <-p.err:
		t.Fatalf("the login ended with %v", err)
	default:
	}
	do(browser, t, chromedp.Navigate(address))
	do(browser, t, signInAs("jane")...)
	arrives(browser, t, "You are signed in")
	if err := <-p.err; err != nil {
		t.Error(err)
	}
}

// hostilePage sends requests in every way, and counts those whose answers it can read.
const hostilePage = `<!DOCTYPE html>
<p id="out"></p>
<script>
const answer = %[1]q, callback = %[2]q;
let read = 0;
const settle = (p) => p.then(() => read++, () => {});
const element = (name, set) => new Promise((resolve, reject) => {
  const e = document.createElement(name);
  e.onload = e.onerror = () => { try { if (e.contentDocument?.body?.innerText) resolve(); } catch {} reject(); };
  set(e);
  document.body.append(e);
});
Promise.all([
  settle(fetch(answer).then((r) => r.text())),
  settle(fetch(answer, { mode: "no-cors" }).then((r) => r.text()).then((t) => { if (!t) throw t; })),
  settle(fetch(callback, { method: "POST", body: "code=x" }).then((r) => r.text())),
  settle(fetch(callback, { method: "PUT" }).then((r) => r.text())),
  settle(element("img", (e) => e.src = answer)),
  settle(element("script", (e) => e.src = answer)),
  settle(element("iframe", (e) => e.src = answer)),
]).then(() => {
  document.getElementById("out").innerText = "Done: " + read + " answers read";
  document.title = "Done";
});
</script>
`

// The programs that are built from this repository, as docs/fakecognito.md shows them: a stand-in for Cognito, a person with
// a browser, and cognitoctl.
func TestBrowserWithCognitoctl(t *testing.T) {
	browser := chromium(t)
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../cmd/fakecognito", "../../cmd/cognitoctl")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	redirect := "http://" + strings.Replace(freeAddr(t), "127.0.0.1", "localhost", 1)
	base := startFakeCognito(t, filepath.Join(bin, "fakecognito"), "-quiet", "-listen", "127.0.0.1:0", "-callback", redirect)

	words := documentedLogin(t)
	for i := range words {
		words[i] = strings.ReplaceAll(words[i], "http://127.0.0.1:9199", base)
	}
	if words[0] != "cognitoctl" {
		t.Fatalf("the page has %v, want a command of cognitoctl", words)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "cognitoctl"), append(words[1:], "--redirect-url", redirect, "--no-browser")...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home)
	var out bytes.Buffer
	cmd.Stdout = &out
	says, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	address := ""
	lines := bufio.NewScanner(says)
	for address == "" && lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if word := strings.TrimSpace(lines.Text()); strings.HasPrefix(word, base) {
			address = word
		}
	}
	if address == "" {
		t.Fatalf("cognitoctl said no address: %s", said.String())
	}
	do(
		browser, t, chromedp.Navigate(address), chromedp.SendKeys(`input[name=username]`, "jane"),
		chromedp.Click(`button[value=signin]`),
	)
	arrives(browser, t, "You are signed in")
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("cognitoctl: %v: %s", err, said.String())
	}
	if !regexp.MustCompile(`^logged in as jane@example\.com \(sub [0-9a-f-]{36}\)`).MatchString(out.String()) {
		t.Errorf("cognitoctl printed %q", out.String())
	}
	if strings.Contains(out.String()+said.String(), "eyJ") {
		t.Error("cognitoctl printed a token")
	}
}

// documentedLogin returns the words of the command in docs/fakecognito.md.
func documentedLogin(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "fakecognito.md"))
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`(?m)^cognitoctl login .*$`).FindString(string(page))
	if command == "" {
		t.Fatal("docs/fakecognito.md has no cognitoctl login")
	}
	return strings.Fields(command)
}

// startFakeCognito returns the address of one that ends with the test.
func startFakeCognito(t *testing.T, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	base, ready := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if err != nil || !ready {
		t.Fatalf("it printed %q, %v, want ready and its address", line, err)
	}
	return base
}
