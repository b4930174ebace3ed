# syntax=docker/dockerfile:1
# triton.Dockerfile for a Jetson: docs/jetson.md. Build on the device, from the repository's root, after
# `edgedit serve repo -b BUNDLE -o models --build-engines fp16`:
#   docker build -f serving/deploy/jetson.Dockerfile -t edgedit/triton-jetson:TAG .
# Images with -igpu are NVIDIA's for the integrated GPUs of JetPack 6; another JetPack takes another one.
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:25.08-py3-igpu
# The digest belongs into the build argument where images are pinned; a tag here says which release was meant.
# hadolint ignore=DL3006
FROM ${TRITON_IMAGE}

LABEL org.opencontainers.image.title="edgedit on Triton Inference Server, for Jetson" \
      org.opencontainers.image.licenses="Apache-2.0"

WORKDIR /opt/edgedit
COPY engines/__init__.py engines/errors.py engines/store.py engines/
COPY serving/__init__.py serving/
COPY serving/deploy/*.py serving/deploy/
COPY models/ /models/

# Everything but these two, /tmp and /dev/shm may be read-only.
RUN chmod -R a+rX /models /opt/edgedit \
 && install --directory --owner=1000 --group=1000 /var/cache/edgedit /run/edgedit

# HOME: what the server's libraries write there. PYTHONUNBUFFERED: progress of the builds appears as it is made.
# EDGEDIT_MEMORY_BUDGET: the GPU's memory is the machine's; an unbounded builder takes what the server and its CPU need.
ENV EDGEDIT_MEMORY_BUDGET=1G \
    HOME=/tmp \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

USER 1000:1000
VOLUME ["/var/cache/edgedit"]
EXPOSE 8001 8002

# The first start builds plans on the device.
HEALTHCHECK --start-period=120m --interval=15s --timeout=15s --retries=4 \
    CMD ["python3", "-m", "serving.deploy.probe", "live"]

# The base image's entry point stays: it sets up CUDA's compatibility libraries for the driver and then runs this.
# An integrated GPU has no DCGM, which Triton reads its metrics of GPUs from.
CMD ["python3", "-m", "serving.deploy", "--allow-gpu-metrics=false"]
