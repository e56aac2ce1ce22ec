package policy_test

import (
	"context"
	"errors"
	"fmt"
	"testing/fstest"

	"github.com/cognito-extauthz/extauthz/pkg/policy"
)

// The built-in policy decides by the route that matched and by the verified token.
func Example() {
	ctx := context.Background()
	engine, err := policy.New(ctx, policy.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}

	decision, err := engine.Decide(ctx, &policy.Input{
		Token: &policy.Token{ClientName: "orders-batch", Scopes: []string{"orders/read"}},
		Route: &policy.Route{Name: "POST /orders", Scopes: policy.Scopes{All: []string{"orders/write"}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(decision.Allowed, decision.HTTPStatus, decision.Reason, decision.Scope)
	// Output: false 403 insufficient_scope orders/write
}

// A policy of one's own extends the built-in one. In a program that serves, Run keeps the engine's goroutines.
func ExampleNew() {
	files := fstest.MapFS{"orders.rego": {Data: []byte(`package extauthz

default decision := false
decision := data.extauthz.base.decision if not startswith(input.canonical.path, "/internal/")
`)}}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	engine, err := policy.New(ctx, policy.Config{FS: files})
	if err != nil {
		fmt.Println(err)
		return
	}
	go engine.Run(ctx)

	for _, path := range []string{"/orders", "/internal/metrics"} {
		decision, err := engine.Decide(ctx, &policy.Input{
			Canonical: policy.Canonical{Path: path},
			Token:     &policy.Token{ClientName: "orders-batch"},
			Route:     &policy.Route{AnyClient: true},
		})
		fmt.Println(path, decision.Allowed, err)
	}
	// Output:
	// /orders true <nil>
	// /internal/metrics false <nil>
}

// What is wrong with a policy is found when it is loaded, with its place.
func ExampleLoadError() {
	files := fstest.MapFS{"orders.rego": {Data: []byte(`package extauthz

default decision := false
decision if input.token.client == "orders-batch"
`)}}
	_, err := policy.New(context.Background(), policy.Config{FS: files})
	var broken *policy.LoadError
	if errors.As(err, &broken) {
		p := broken.Problems[0]
		fmt.Println(p.File, p.Row, p.Col)
	}
	// Output: orders.rego 4 13
}

// Every error of Decide is one Reason, which is also the label of a metric.
func ExampleReason() {
	files := fstest.MapFS{"orders.rego": {Data: []byte(`package extauthz

decision := {"allowed": true, "headers": {"host": "elsewhere"}}
`)}}
	ctx := context.Background()
	engine, err := policy.New(ctx, policy.Config{FS: files})
	if err != nil {
		fmt.Println(err)
		return
	}
	decision, err := engine.Decide(ctx, &policy.Input{})
	var reason policy.Reason
	fmt.Println(decision.Allowed, errors.As(err, &reason), string(reason))
	fmt.Println(err)
	// Output:
	// false true policy_error
	// policy: headers.host of the decision is a header of the connection or the message's framing, want a header that a policy may set
}
