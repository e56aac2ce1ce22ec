// An issuer of client credentials tokens, by oauth2-mock-server, whose hook gives the claims Cognito's shape.
// It prints its issuer once it listens, and ends when its input does.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.env.INTEROP_NODE_MODULES + "/");
const { OAuth2Server } = await import(pathToFileURL(require.resolve("oauth2-mock-server")));

const server = new OAuth2Server();
await server.issuer.keys.generate("RS256");
server.service.on("beforeTokenSigning", (token, req) => {
  const client = req.body.client_id;
  delete token.payload.amr;
  delete token.payload.aud;
  Object.assign(token.payload, { sub: client, client_id: client, token_use: "access", version: 2 });
});
await server.start(0, "127.0.0.1");
console.log(JSON.stringify({ issuer: server.issuer.url }));

process.stdin.resume();
process.stdin.on("end", () => server.stop().then(() => process.exit(0)));
