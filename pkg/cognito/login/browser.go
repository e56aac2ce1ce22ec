package login

import (
	"context"
	"io"
	"sync"

	"github.com/cli/browser"
)

// OpenBrowser opens the URL in the system's browser. It may return only when the browser ends; what that writes is discarded,
// as it would stand between the program's own lines. The context ends nothing: the browser is the person's.
func OpenBrowser(_ context.Context, url string) error {
	silenceBrowser()
	return browser.OpenURL(url)
}

// silenceBrowser changes variables of the library for the whole process, hence once.
var silenceBrowser = sync.OnceFunc(func() { browser.Stdout, browser.Stderr = io.Discard, io.Discard })

// NoBrowser opens nothing: the person follows the printed URL.
func NoBrowser(context.Context, string) error { return nil }
