package main

const clientExample = "batch:s3cret:orders/read,orders/write"

// help is what --help prints. docs/fakecognito.md repeats it, and a test holds the two together.
const help = `fakecognito - a stand-in for Amazon Cognito user pools, FOR DEVELOPMENT ONLY

It signs real RS256 tokens and serves what a verifier and a caller need of
Cognito: JWK Set, discovery document, token endpoint (client credentials,
authorization code with PKCE, refresh), sign-in page, revocation, logout.
It gives any token to anybody who reaches it, so it listens on loopback
addresses and nowhere else.

usage: fakecognito [flags]

  -listen HOST:PORT   where to listen; port 0 is any free one
                      (default 127.0.0.1:9199)
  -client CLIENT      an app client, as [POOL/]ID:SECRETS:SCOPES; may be repeated.
                      SECRETS is one secret, or two with a comma between them, or
                      empty for a public client. SCOPES have commas between them.
                      Without this flag there is a demo pool with three clients.
  -pool POOL          the user pool of clients that name none
                      (default eu-west-1_Demo12345)
  -ttl DURATION       lifetime of tokens (default 1h0m0s)
  -user NAME          sign in this person at once, without a page
  -callback URL       a callback and sign-out URL of the clients; may be repeated.
                      With port 0, any port (default http://localhost:3000)
  -rotate             give out a new refresh token with each refresh
  -tls-cert FILE      serve HTTPS, and write the certificate to FILE
  -quiet              do not log requests
  -help               print this

The first line on standard output is "ready URL". SIGINT and SIGTERM end it.

examples:

  fakecognito
  fakecognito -ttl 30s -client batch:s3cret:orders/read,orders/write
  fakecognito -client batch:s3cret:orders/read \
              -client us-east-1_Other/audit:old,new:https://audit.example/read

endpoints (POOL is a user pool ID):

  GET  /POOL/.well-known/jwks.json
  GET  /POOL/.well-known/openid-configuration
  POST /POOL/oauth2/token        or /oauth2/token, for the client's own pool
  GET  /POOL/oauth2/authorize    or /oauth2/authorize: a page that believes any
                                 name, and asks for no password
  POST /POOL/oauth2/revoke       or /oauth2/revoke
  GET  /POOL/logout              or /logout

control endpoints (parameters as a form or in the query; pool=POOL may be left
out if there is only one; they answer JSON):

  GET  /_control/state           keys, clients, counts of requests, faults
  POST /_control/rotate          sign access tokens with a new key; the old one
                                 stays published
  POST /_control/remove-key      kid=KID: take a key out of the JWK Set
  POST /_control/token           client=ID [use=machine|user|id] [user=NAME]
                                 [scope=...] [ttl=-5m]: mint a token, no secret
                                 asked, for tests of what is refused
  POST /_control/fail            endpoint=jwks|openid-configuration|token|
                                 authorize|revoke and one or more of status=503
                                 body=... delay=2s redirect=URL huge=BYTES
                                 hang=true drop=true truncate=true; times=N ends
                                 it after N requests
  POST /_control/heal            endpoint=...: make it work again

Use curl --data-urlencode for a kid, which may hold a +.
`
