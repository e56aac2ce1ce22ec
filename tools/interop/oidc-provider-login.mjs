// An issuer for people, by oidc-provider: authorization code with PKCE, refresh tokens that rotate, revocation, and its own
// sign-in page for development, which believes any name. Its tokens get Cognito's token_use.
// It prints its issuer once it listens, and ends when its input does.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { generateKeyPairSync } from "node:crypto";

const require = createRequire(process.env.INTEROP_NODE_MODULES + "/");
const { Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));

const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const client = {
  grant_types: ["authorization_code", "refresh_token"],
  response_types: ["code"],
  // A native application's may come back to any port of a loopback address (RFC 8252 section 7.3).
  application_type: "native",
  redirect_uris: ["http://127.0.0.1/done"],
  scope: "openid email orders/read",
};
const settings = {
  clients: [
    { ...client, client_id: "cli", token_endpoint_auth_method: "none" },
    { ...client, client_id: "cli-with-secret", client_secret: "secret", token_endpoint_auth_method: "client_secret_basic" },
  ],
  jwks: { keys: [{ ...privateKey.export({ format: "jwk" }), kid: "interop", alg: "RS256", use: "sig" }] },
  cookies: { keys: ["interop"] },
  scopes: ["openid", "email", "orders/read"],
  claims: { openid: ["sub", "token_use"], email: ["email", "cognito:username"] },
  conformIdTokenClaims: false,
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, token_use: "id", email: `${id}@example.com`, "cognito:username": id }),
  }),
  extraTokenClaims: () => ({ token_use: "access" }),
  issueRefreshToken: () => true,
  rotateRefreshToken: () => true,
  pkce: { required: () => true },
  features: {
    devInteractions: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => "https://orders.example.com",
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: "orders/read",
        accessTokenFormat: "jwt",
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
};

// The issuer has the port in it, which is known only once something listens.
const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  server.on("request", new Provider(issuer, settings).callback());
  console.log(JSON.stringify({ issuer }));
});

process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
