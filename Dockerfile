# The image of sluice-server: the tree that scripts/package makes, on the Debian packages that it names with versions.
#   docker build -t sluice:0.1.0 .                      every kind of x86-64 CPU: about half an hour on 2 cores
#   docker build --build-arg CPU=x86-64-v3 ...          one kind
#   docker build --build-arg MODEL= ...                 without a model
# For a build that can be repeated give BASE with a digest (debian:12-slim@sha256:...). Everything else is pinned:
# Python packages by hash, Debian packages by the version that the build stage had.
ARG BASE=debian:12-slim

FROM ${BASE} AS build
ARG CPU=all
ARG MODEL=--with-model
COPY . /src
# The cache outlives a failed build; nothing of it reaches the image.
RUN --mount=type=cache,target=/cache SLUICE_CACHE=/cache /src/scripts/package --cpu "$CPU" $MODEL --output /package

FROM ${BASE}
COPY --from=build /package/tree/PACKAGES /usr/share/sluice/PACKAGES
RUN apt-get update -qq && \
    apt-get install -y -qq --no-install-recommends $(cat /usr/share/sluice/PACKAGES) && \
    rm -rf /var/lib/apt/lists/* && \
    mkdir -p /models
COPY --from=build /package/tree/bin/ /usr/local/bin/
COPY --from=build /package/tree/libexec/ /usr/local/libexec/
COPY --from=build /package/tree/etc/ /usr/local/etc/
COPY --from=build /package/tree/SHA256SUMS /usr/share/sluice/SHA256SUMS
COPY --from=build /package/tree/models/ /models/
# Nothing is written: the chart mounts the root file system read-only.
USER 65532:65532
WORKDIR /
EXPOSE 8001 8002
STOPSIGNAL SIGTERM
ENTRYPOINT ["sluice-server"]
