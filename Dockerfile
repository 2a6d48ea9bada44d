# The steps are the Makefile's own. Build: docker build -t clickedge .
FROM python:3.11-slim-bookworm AS build
# A pinned version of make would be gone from Debian with its next point release.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/clickedge
COPY . .
# It runs once where it was built: a missing library fails here, not at the first start.
RUN make setup PYTHON=/usr/local/bin/python3.11 && .venv/bin/clickedge --help >/dev/null

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="ClickEdge" \
      org.opencontainers.image.description="A self-hosted tracking edge for performance marketing"
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/clickedge --shell /usr/sbin/nologin clickedge
COPY --from=build /opt/clickedge /opt/clickedge
# The admin port listens on all of the container's addresses: publish it to nobody but yourself (-p 127.0.0.1:8081:8081).
ENV PATH=/opt/clickedge/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    EDGE_DATA_DIR=/var/lib/clickedge/data \
    EDGE_ADMIN_HOST=0.0.0.0
# A number: what checks that no container runs as root cannot look names up.
USER 10001
WORKDIR /var/lib/clickedge
# Journals, the embedded database and the generated secrets: without a volume they go with the container.
VOLUME /var/lib/clickedge
EXPOSE 8080 8081
# An orderly end may take a minute: docker stop -t 90. One that is cut short loses nothing.
STOPSIGNAL SIGTERM
# The public port, which redirects also while PostgreSQL is away; as a balancer asks that speaks for itself, where a PROXY
# header must come first; the certificate, if any, is for another name.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-c", \
    "import http.client, os, ssl; e = os.environ.get; \
    c = http.client.HTTPConnection('127.0.0.1', int(e('EDGE_PORT') or 8080), timeout=2); c.connect(); \
    e('EDGE_PROXY_PROTOCOL', '').lower() in ('on', 'true', '1') and c.sock.sendall(b'\\r\\n\\r\\n\\0\\r\\nQUIT\\n\\x20\\0\\0\\0'); \
    c.sock = ssl._create_unverified_context().wrap_socket(c.sock) if e('EDGE_TLS_CERT') else c.sock; \
    c.request('GET', '/livez'); assert c.getresponse().status == 200"]
ENTRYPOINT ["clickedge"]
CMD ["serve"]
