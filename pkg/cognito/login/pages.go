package login

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
)

// A page is what the browser shows at the end. It holds nothing of the request but the authorization endpoint's reason, and
// has no script, no link and no picture.
type page struct {
	status int
	Title  string
	Text   string
	Reason string // of the authorization endpoint; may be empty
}

var (
	pageDone = page{
		http.StatusOK, "You are signed in",
		"You can close this window and go back to your program.", "",
	}
	pageFailed = page{
		http.StatusBadGateway, "You are not signed in",
		"You did your part, but your program could not get tokens that hold. It says why where you started it.", "",
	}
	pageStrange = page{
		http.StatusBadRequest, "This is not an answer to the login that waits here",
		"Your program goes on waiting. If you have an older sign-in page open, close it, and use the one that belongs to the address that your program printed last.", "",
	}
	pageUsed = page{
		http.StatusConflict, "This login has had its answer",
		"Go back to your program. To sign in once more, start there.", "",
	}
	pageNotFound = page{
		http.StatusNotFound, "There is nothing here",
		"A program waits at this address for the end of a login.", "",
	}
	pageForbidden = page{
		http.StatusForbidden, "This request is not answered",
		"A program waits at this address for the end of a login, which a browser has to bring by itself.", "",
	}
	pageMethod = page{
		http.StatusMethodNotAllowed, "This request is not answered",
		"A program waits at this address for the end of a login, which comes by GET.", "",
	}
)

func pageRefused(e *AuthorizationError) page {
	p := page{http.StatusOK, "You are not signed in", "The sign-in ended without success. Your program has been told.", e.Code}
	if e.Description != "" {
		p.Reason += ": " + e.Description
	}
	return p
}

const pageStyle = `body{font:1.1em/1.5 sans-serif;max-width:34em;margin:15vh auto;padding:0 1em;color-scheme:light dark}h1{font-size:1.5em}`

var pageTemplate = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{.Title}}</title>
<style>` + pageStyle + `</style>
<h1>{{.Title}}</h1>
<p>{{.Text}}</p>
{{with .Reason}}<p>The reason given: <q>{{.}}</q></p>
{{end}}</html>
`))

// pagePolicy lets the page have its own style and nothing else (Content Security Policy Level 3, section 6).
var pagePolicy = func() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return fmt.Sprintf("default-src 'none'; style-src 'sha256-%s'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		base64.StdEncoding.EncodeToString(sum[:]))
}()

// write answers a request, and returns once the answer is on its way.
func (p page) write(w http.ResponseWriter) {
	var body bytes.Buffer
	_ = pageTemplate.Execute(&body, p) // a buffer and strings give it no way to fail
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // the address holds the code
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Connection", "close")
	w.WriteHeader(p.status)
	_, _ = w.Write(body.Bytes())
	_ = http.NewResponseController(w).Flush()
}
