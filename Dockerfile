# The image of one hub: the binary, with the test page and the official client's bundle in it, and nothing else of ours.
#
# Three stages: npm fetches the client's bundle; cargo builds the dependencies, then the hub; the last one is what runs.
# Only plain instructions, so that every builder of the last years takes it.

# ---- the official client's bundle -------------------------------------------------------------------------------------
FROM debian:bookworm-slim AS client-bundle
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates npm \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /static
COPY static/package.json static/package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund

# ---- the binary -------------------------------------------------------------------------------------------------------
FROM rust:1.95-slim-bookworm AS build
WORKDIR /hub
# Symbols stay, for the names in a backtrace; line tables would be half of the image.
ENV CARGO_PROFILE_RELEASE_STRIP=debuginfo
# The dependencies, in a layer of their own, which stands until they or many-sends change: built for an empty crate in the hub's
# place. What belongs to that crate goes again, since cargo goes by time stamps and would take it for the hub's.
COPY Cargo.toml Cargo.lock build.rs ./
COPY many-sends many-sends
COPY static/package.json static/
RUN mkdir src \
    && echo '//! Stands for the hub.' > src/lib.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --release --locked --bin sockhop \
    && cargo clean --release --locked -p sockhop \
    && rm -r src
COPY src src
COPY static static
COPY --from=client-bundle /static/node_modules static/node_modules
RUN cargo build --release --locked --bin sockhop

# ---- what runs --------------------------------------------------------------------------------------------------------
FROM debian:bookworm-slim
# A fixed number, so that a host can give a mounted /data to it. Only a single instance writes there; with REDIS_URL
# nothing is written at all.
# The certificate authorities that a Redis behind rediss:// may be signed by.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 sockhop \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin sockhop \
    && install -d -o 10001 -g 10001 -m 0700 /data
COPY --from=build /hub/target/release/sockhop /usr/local/bin/sockhop
ENV DATA_DIR=/data
VOLUME /data
WORKDIR /data
USER 10001:10001
EXPOSE 3000
# The hub itself listens to it: tells its clients, publishes what waits, ends.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["sockhop", "healthcheck"]
ENTRYPOINT ["sockhop"]
