# syntax=docker/dockerfile:1
# Sallyport in an image: `docker build -t sallyport .`. The last stage has the program, the certificates of public authorities, and nothing
# else: no shell, no package manager. It runs as uid 65532, on a read-only root; what it keeps is in /var/lib/sallyport.

FROM node:22-bookworm-slim AS node

FROM rust:1.95.0-bookworm AS build
# aws-lc-sys is compiled by cmake where it has no prepared objects.
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=node /usr/local/lib/node_modules /usr/local/lib/node_modules
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
WORKDIR /build
COPY Cargo.toml Cargo.lock build.rs sallyport.example.toml ./
COPY migrations migrations
COPY src src
# Cargo wants every target that its manifest names, and the lock file every package.
COPY benches benches
COPY tests tests
COPY docs docs
COPY web web
ENV SALLYPORT_WEB=require
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    cargo build --locked --release --package sallyport --package sallyport-verify \
    && install -D -t /out/bin target/release/sallyport target/release/sallyport-verify \
    && strip /out/bin/* && install -d -m 700 /out/data

# The program with a shell and an SSH client, to set something up.
FROM debian:12-slim AS tools
RUN apt-get update && apt-get install -y --no-install-recommends openssh-client ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/bin/sallyport /usr/local/bin/sallyport

# A host to try it on: docker-compose.yml.
FROM debian:12-slim AS target
RUN apt-get update && apt-get install -y --no-install-recommends openssh-server rsync vim-tiny procps \
    && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* && useradd --create-home --shell /bin/bash demo && mkdir /run/sshd
COPY deploy/compose/target.sh /usr/local/bin/target.sh
CMD ["/bin/sh", "/usr/local/bin/target.sh"]

FROM gcr.io/distroless/cc-debian12:nonroot AS sallyport
COPY --from=build /out/bin/ /usr/local/bin/
# A new volume takes the owner and mode of the folder that it covers.
COPY --from=build --chown=65532:65532 /out/data /var/lib/sallyport
USER 65532:65532
VOLUME /var/lib/sallyport
EXPOSE 2222 8443
ENV SALLYPORT__API__HTTPS_LISTEN=0.0.0.0:8443
ENTRYPOINT ["/usr/local/bin/sallyport"]
CMD ["serve"]
