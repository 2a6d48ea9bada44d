# The steps are the Makefile's own. Build: docker build -t clickedge .
FROM python:3.11-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/clickedge
COPY . .
RUN make setup PYTHON=/usr/local/bin/python3.11

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/clickedge --shell /usr/sbin/nologin clickedge
COPY --from=build /opt/clickedge /opt/clickedge
# The admin port has no authentication: publish it to nobody but yourself (-p 127.0.0.1:8081:8081).
ENV PATH=/opt/clickedge/.venv/bin:$PATH \
    EDGE_DATA_DIR=/var/lib/clickedge/data \
    EDGE_ADMIN_HOST=0.0.0.0
USER clickedge
WORKDIR /var/lib/clickedge
# Journals, the embedded database and the generated secrets: without a volume they go with the container.
VOLUME /var/lib/clickedge
EXPOSE 8080 8081
# An orderly end may take a minute: docker stop -t 90. One that is cut short loses nothing.
STOPSIGNAL SIGTERM
# The public port, which redirects also while PostgreSQL is away; the certificate, if any, is for another name.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["python", "-c", \
    "import os, ssl, urllib.request as r; e = os.environ.get; r.urlopen(f\"{'https' if e('EDGE_TLS_CERT') else 'http'}://127.0.0.1:{e('EDGE_PORT') or 8080}/livez\", timeout=2, context=ssl._create_unverified_context())"]
ENTRYPOINT ["clickedge"]
CMD ["serve"]
