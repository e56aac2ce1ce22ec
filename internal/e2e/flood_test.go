package e2e_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/cognito-extauthz/extauthz/internal/cognitotest"
)

// A flood sends tokens that nobody has signed. Each names a key that there is not, under a kid of its own.
type flood struct {
	conn *grpc.ClientConn
	pool *cognitotest.Pool
	sent atomic.Int64

	mu  sync.Mutex
	got map[verdict]int
}

func newFlood(t *testing.T, x *service, p *cognitotest.Pool) *flood {
	t.Helper()
	return &flood{conn: connect(t, x), pool: p, got: map[verdict]int{}}
}

// pour sends tokens one after the other as long as more says so.
func (f *flood) pour(t *testing.T, more func() bool) {
	const (
		renewed = 256 // so that iat stays fresh
		early   = 8   // of so many, one was issued a while ago: keys have been fetched since
	)
	got := map[verdict]int{}
	var fresh, old []byte
	for n := 0; more(); n++ {
		if n%renewed == 0 {
			fresh, old = f.message(t, time.Now()), f.message(t, time.Now().Add(-5*time.Minute))
		}
		message := fresh
		if n%early == 0 {
			message = old
		}
		v, err := f.send(message)
		if err != nil {
			t.Errorf("gRPC error %v, want an answer", err)
			return
		}
		got[v]++
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for v, n := range got {
		f.got[v] += n
	}
}

// message returns a check whose token is good but for its kid and its signature, as bytes: to write each anew takes longer
// than to answer it.
func (f *flood) message(t *testing.T, issued time.Time) []byte {
	t.Helper()
	claims, err := json.Marshal(f.pool.Claims(batchID, cognitotest.IssuedAt(issued)))
	if err != nil {
		t.Error(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	token := joseHeader([32]byte{}) + "." + encode(claims) + "." + encode(make([]byte, 256))
	text, err := proto.Marshal(checkRequest(ordered, map[string]string{"authorization": "Bearer " + token}))
	if err != nil {
		t.Error(err)
	}
	return text
}

// send sends a message with another kid.
func (f *flood) send(message []byte) (verdict, error) {
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	var kid [32]byte
	for i := range kid {
		kid[i] = byte(rand.Uint32())
	}
	message = bytes.Replace(message, []byte(joseHeader([32]byte{})), []byte(joseHeader(kid)), 1)
	var reply []byte
	if err := f.conn.Invoke(ctx, authv3.Authorization_Check_FullMethodName, message, &reply, grpc.ForceCodec(rawCodec{})); err != nil {
		return verdict{}, err
	}
	var resp authv3.CheckResponse
	err := proto.Unmarshal(reply, &resp)
	return verdictOf(&resp), err
}

// joseHeader returns a JOSE header as Cognito writes it.
func joseHeader(kid [32]byte) string {
	return base64.RawURLEncoding.EncodeToString([]byte(`{"kid":"` + base64.StdEncoding.EncodeToString(kid[:]) + `","alg":"RS256"}`))
}

// A hundred thousand tokens with a kid each cost the key server one request in an interval, and the others nothing. The test
// is not parallel, so that its times mean something.
func TestFloodOfUnknownKidsHarmsNobody(t *testing.T) {
	const (
		interval = time.Second
		all      = 100_000
		least    = 20_000           // with the race detector,
		longest  = 15 * time.Second // which leaves time for that many and maybe more
		workers  = 32
	)
	p := newPool(t)
	x, g := newTokens(t, p, "jwks: {minInterval: "+interval.String()+"}")
	f := newFlood(t, x, p)
	over := make(chan struct{})
	valid := newValid(t, g, p, over)

	before, start := p.Requests(cognitotest.JWKS), time.Now()
	more := func() bool {
		n := f.sent.Add(1)
		return n <= all && (!raceDetector || n <= least || time.Since(start) < longest)
	}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() { f.pour(t, more) })
	}
	wg.Wait()
	elapsed := time.Since(start)
	close(over)
	valid.wait()
	requests := p.Requests(cognitotest.JWKS) - before

	total := 0
	for v, n := range f.got {
		total += n
		if v != unknownKey && v != unavailable {
			t.Errorf("%d tokens of the flood got %+v, want 401 unknown_key, or 503 keys_unavailable with Retry-After", n, v)
		}
	}
	if f.got[unknownKey] == 0 || f.got[unavailable] == 0 || total < least {
		t.Errorf("%d tokens were refused and checks of %d failed, want some of both and %d in all", f.got[unknownKey], f.got[unavailable], least)
	}
	if most := 1 + int(elapsed/interval); requests > most || requests == 0 {
		t.Errorf("%d requests at the key server in %s, want at least 1 and at most %d", requests, elapsed, most)
	}
	t.Logf("%d unknown kids of %d (race detector: %t) in %s: %d refused, %d failed, %d requests at the key server; beside them %d valid requests, half of them within %s, 99 of 100 within %s",
		total, all, raceDetector, elapsed.Round(time.Millisecond), f.got[unknownKey], f.got[unavailable], requests, len(valid.took), valid.quantile(0.5), valid.quantile(0.99))
}

// valid is traffic with good tokens, all of which must be let in.
type valid struct {
	wg   sync.WaitGroup
	took []time.Duration // sorted after wait
}

// newValid sends a few good tokens through Envoy in turn, those that it has seen before and new ones, until over is closed.
func newValid(t *testing.T, g *gateway, p *cognitotest.Pool, over <-chan struct{}) *valid {
	t.Helper()
	v := &valid{}
	known := []string{p.Token(batchID), p.Token(reportsID), p.Token(batchID)}
	for _, token := range known {
		g.expect(t, "before the flood", token, reaches(ordered))
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: clientTimeout}
	v.wg.Go(func() {
		defer client.CloseIdleConnections()
		for i := 0; ; i++ {
			select {
			case <-over:
				return
			default:
			}
			token := known[i%len(known)]
			if i%4 == 3 {
				token = p.Token(batchID)
			}
			start := time.Now()
			if status := getStatus(client, g.URL()+ordered, "Authorization: Bearer "+token); status != 200 {
				t.Errorf("valid request %d during the flood: status %d, want 200", i, status)
			}
			v.took = append(v.took, time.Since(start))
		}
	})
	return v
}

func (v *valid) wait() {
	v.wg.Wait()
	slices.Sort(v.took)
}

func (v *valid) quantile(q float64) time.Duration {
	if len(v.took) == 0 {
		return 0
	}
	return v.took[int(q*float64(len(v.took)-1))].Round(10 * time.Microsecond)
}
