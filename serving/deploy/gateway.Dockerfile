# syntax=docker/dockerfile:1
# The gateway. Build from the repository's root:
#   docker build -f serving/deploy/gateway.Dockerfile -t edgedit/gateway:TAG .
ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS builder
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
# The locks are complete and hold a digest for every file; nothing else is installed.
COPY serving/deploy/gateway.lock serving/deploy/build.lock ./
RUN python -m venv /opt/edgedit \
 && /opt/edgedit/bin/pip install --no-deps --require-hashes --only-binary :all: -r gateway.lock \
 && pip install --no-deps --require-hashes --only-binary :all: -r build.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY edgedit/ edgedit/
COPY engines/ engines/
COPY serving/ serving/
RUN pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
 && /opt/edgedit/bin/pip install --no-deps --no-index wheels/*.whl \
 && /opt/edgedit/bin/python -m compileall -q /opt/edgedit/lib \
 && /opt/edgedit/bin/pip uninstall --yes pip

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="edgedit gateway" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=builder /opt/edgedit /opt/edgedit
# Nothing is written: the file system may be read-only.
ENV HOME=/tmp \
    OMP_NUM_THREADS=1 \
    PATH=/opt/edgedit/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 1000:1000
EXPOSE 8080
HEALTHCHECK --start-period=30s --interval=15s --timeout=5s --retries=4 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
# Exec form: the gateway is the process that gets SIGTERM, and drains.
ENTRYPOINT ["edgedit", "serve", "gateway"]
CMD ["--host", "0.0.0.0", "--api-keys", "/run/secrets/edgedit/keys"]
