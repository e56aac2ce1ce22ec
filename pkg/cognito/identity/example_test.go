package identity_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/cognito-extauthz/extauthz/pkg/cognito/identity"
)

// A client of any AWS service takes the Provider for its credentials, and asks it before each request. Here it is STS,
// which says whose credentials they are.
func Example() {
	ctx := context.Background()
	cloud, signIn := standIns()
	defer cloud.Close()

	provider, err := identity.New(identity.Config{
		IdentityPoolID: "eu-west-1:00000000-1111-2222-3333-444444444444",
		UserPoolID:     "eu-west-1_AbCdEfGhI",
		IDToken:        signIn,    // in production: the IDToken method of a login.Session
		Endpoint:       cloud.URL, // in production: left out
	})
	if err != nil {
		panic(err)
	}
	client := sts.NewFromConfig(aws.Config{
		Region:       "eu-west-1",
		Credentials:  provider,
		BaseEndpoint: aws.String(cloud.URL), // in production: left out
	})
	for range 3 {
		who, err := client.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		if err != nil {
			panic(err)
		}
		fmt.Println(*who.Arn)
	}
	// Output:
	// GetId
	// GetCredentialsForIdentity
	// arn:aws:sts::123456789012:assumed-role/Analyst/CognitoIdentityCredentials
	// arn:aws:sts::123456789012:assumed-role/Analyst/CognitoIdentityCredentials
	// arn:aws:sts::123456789012:assumed-role/Analyst/CognitoIdentityCredentials
}

// A suffix selects the role if the user has several. If it does not select exactly one, the error names them.
func ExampleSelectRole() {
	roles := []string{"arn:aws:iam::123456789012:role/Analyst", "arn:aws:iam::123456789012:role/teams/Admin"}
	fmt.Println(identity.SelectRole(roles, "/Admin"))
	_, err := identity.SelectRole(roles, "A")
	fmt.Println(err)
	// Output:
	// arn:aws:iam::123456789012:role/teams/Admin <nil>
	// identity: none of the user's roles ends in "A", want one of: arn:aws:iam::123456789012:role/Analyst, arn:aws:iam::123456789012:role/teams/Admin
}

// A program that ends in this is a credential_process of ~/.aws/config.
func ExampleWriteProcess() {
	// In production they come from Provider.Credentials.
	credentials := identity.NewCredentials("ASIAEXAMPLE", "secret", "token", time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC))
	if err := identity.WriteProcess(os.Stdout, credentials); err != nil {
		panic(err)
	}
	fmt.Println(credentials) // which shows no secret
	// Output:
	// {"Version":1,"AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"secret","SessionToken":"token","Expiration":"2030-01-01T12:00:00Z"}
	// AWS credentials of "", access key "ASIAEXAMPLE", role "", until 2030-01-01T12:00:00Z
}

// standIns are an identity pool and STS, and somebody who has signed in.
func standIns() (cloud *httptest.Server, idToken func(context.Context) (string, error)) {
	cloud = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, call, ok := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		if ok {
			fmt.Println(call)
		}
		switch call {
		case "GetId":
			_, _ = io.WriteString(w, `{"IdentityId":"eu-west-1:11111111-aaaa-bbbb-cccc-000000000001"}`)
		case "GetCredentialsForIdentity":
			_, _ = fmt.Fprintf(w, `{"Credentials":{"AccessKeyId":"ASIAEXAMPLE","SecretKey":"secret","SessionToken":"token","Expiration":%d}}`, time.Now().Add(time.Hour).Unix())
		default:
			if !strings.Contains(r.Header.Get("Authorization"), "Credential=ASIAEXAMPLE/") || r.Header.Get("X-Amz-Security-Token") != "token" {
				http.Error(w, "not signed", http.StatusForbidden)
				return
			}
			w.Header().Set("Content-Type", "text/xml")
			_, _ = io.WriteString(w, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>`+
				`<Arn>arn:aws:sts::123456789012:assumed-role/Analyst/CognitoIdentityCredentials</Arn></GetCallerIdentityResult></GetCallerIdentityResponse>`)
		}
	}))
	payload, err := json.Marshal(map[string]any{"iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI", "sub": "jane", "token_use": "id"})
	if err != nil {
		panic(err)
	}
	token := "e30." + base64.RawURLEncoding.EncodeToString(payload) + ".c2lnbmF0dXJl"
	return cloud, func(context.Context) (string, error) { return token, nil }
}
