package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cognito-extauthz/extauthz/internal/lab"
)

// With the shipped configuration, nothing passes while extauthz is gone, and all is well once it is back.
func TestNothingPassesWhileExtauthzIsGone(t *testing.T) {
	t.Parallel()
	x := newService(t, "own.yaml", map[string]string{"MAIN": pool(t, mainPool).Issuer()})
	g := newGateway(t, x)
	token := bearer(t, reportsID)
	reached := reaches("/case/yes")
	eventually(t, func() error { return differ(reached, g.get(t, "/case/yes", token).outcome()) })

	x.Kill()
	before := g.echo.Requests()
	requests := []func() answer{
		func() answer { return g.get(t, "/case/yes", token) },
		func() answer { return g.get(t, "/case/yes") },
		func() answer { return g.get(t, "/open/yes") },
		func() answer { return g.sendH2(t, h2("GET", "/case/yes", toFields([]string{token})...)) },
	}
	for round := range 3 { // before Envoy's health check has noticed, and perhaps after
		for i, request := range requests {
			if a := request(); a.outcome() != (outcome{Status: 503}) {
				t.Errorf("round %d, request %d: got %+v, want 503", round, i, a.outcome())
			}
		}
	}
	if seen := g.echo.Requests() - before; seen != 0 {
		t.Errorf("%d requests reached the upstream, want none", seen)
	}
	a := g.get(t, "/case/yes", token)
	if entry := g.logged(t, a); entry["details"] != "ext_authz_error" || entry["reason"] != nil {
		t.Errorf("Envoy's access log has %v, want ext_authz_error and no reason", entry)
	}

	if err := x.start(x.Metrics); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	eventually(t, func() error { return differ(reached, g.get(t, "/case/yes", token).outcome()) })
	t.Logf("Envoy found it again after %s", time.Since(started).Round(10*time.Millisecond))
}

func differ(want, got outcome) error {
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Errorf("-want +got:\n%s", diff)
	}
	return nil
}

// A rollout drops nothing: of two replicas behind Envoy with the shipped health checks, one drains with the default delay
// while requests come in at a steady rate, and each of them is answered with 200.
func TestDrainDropsNothing(t *testing.T) {
	t.Parallel()
	values := map[string]string{"MAIN": pool(t, mainPool).Issuer()}
	delay := "EXTAUTHZ__SHUTDOWN__DELAY=5s" // the default
	leaving, staying := newService(t, "own.yaml", values, delay), newService(t, "own.yaml", values, "EXTAUTHZ__SHUTDOWN__DELAY=0s")
	endpoint := map[string]any{"endpoint": map[string]any{"address": map[string]any{"socket_address": map[string]any{
		"address": "127.0.0.1", "port_value": staying.grpcPort,
	}}}}
	g := newGateway(t, leaving, patience(), []lab.Edit{lab.Add(lab.ClustersPath+"/extauthz/load_assignment/endpoints/0/lb_endpoints/+", endpoint)})
	eventually(t, func() error {
		if n, err := g.Stat(t.Context(), "cluster.extauthz.membership_healthy"); err != nil || n != 2 {
			return fmt.Errorf("%d healthy replicas, %w, want 2", n, err)
		}
		return nil
	})

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	token := bearer(t, reportsID)
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}, Timeout: clientTimeout}
	defer client.CloseIdleConnections()
	for range 4 {
		wg.Go(func() {
			tick := time.NewTicker(40 * time.Millisecond) // 100 a second in all
			defer tick.Stop()
			for ctx.Err() == nil {
				status := getStatus(client, g.URL()+"/case/yes", token)
				mu.Lock()
				statuses[status]++
				mu.Unlock()
				<-tick.C
			}
		})
	}
	checks := func(x *service) int64 { return x.metric(t, `extauthz_checks_total{`) }
	eventually(t, func() error { // both have had their share
		if a, b := checks(leaving), checks(staying); a < 20 || b < 20 {
			return fmt.Errorf("%d and %d checks, want 20 each", a, b)
		}
		return nil
	})
	stop, cancelStop := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancelStop()
	if err := leaving.Stop(stop); err != nil {
		t.Errorf("the one that drains: %v", err)
	}
	after := checks(staying)
	eventually(t, func() error { // and the other one goes on alone
		if n := checks(staying); n < after+50 {
			return fmt.Errorf("%d checks since, want 50", n-after)
		}
		return nil
	})
	cancel()
	wg.Wait()
	if statuses[200] < 100 || len(statuses) != 1 {
		t.Errorf("statuses %v, want all of them 200", statuses)
	}
	t.Logf("%d requests", statuses[200])
}

// getStatus returns the status of a GET; 0 if there is none.
func getStatus(client *http.Client, url, header string) int {
	req, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0
	}
	for _, f := range toFields([]string{header}) {
		req.Header.Set(f[0], f[1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0
	}
	return resp.StatusCode
}
