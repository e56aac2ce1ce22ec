# syntax=docker/dockerfile:1

# The image holds one static program and the CA roots it fetches keys with: no shell, no package manager, no libc.
FROM golang:1.26-bookworm AS build
WORKDIR /src
ENV CGO_ENABLED=0 GOFLAGS=-mod=readonly
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=devel
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/extauthz ./cmd/extauthz

FROM scratch
LABEL org.opencontainers.image.title="extauthz" \
      org.opencontainers.image.description="Envoy ext_authz service for Amazon Cognito tokens, with OPA policies" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chmod=0555 /out/extauthz /usr/local/bin/extauthz
# A number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 65532:65532
# gRPC for Envoy, and metrics with /livez and /readyz. The admin listener stays on loopback and is not exposed.
EXPOSE 9191 9192
ENTRYPOINT ["/usr/local/bin/extauthz"]
# Its configuration is /etc/extauthz/extauthz.yaml unless --config says otherwise.
CMD ["serve"]
