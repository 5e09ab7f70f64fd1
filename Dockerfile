# syntax=docker/dockerfile:1
#
#   docker build -t edgekd .
#   docker build -t edgekd:gpu --build-arg RUNTIME=gpu \
#       --build-arg BASE=nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04 .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/workspace" edgekd compress --latency-ms 10 --out bundle
#
# The CPU image takes torch's CPU build from TORCH_INDEX: PyPI gives Linux the CUDA build, several GB. With
#   --build-arg TORCH_INDEX=
# everything comes from PyPI, or from the index that pip is told of. The GPU image runs with `docker run --gpus all`.
# Rootless and daemonless builders take the same file: `podman build -t edgekd .`, `buildah build -t edgekd .`

# No stage is named by an argument: buildah 1.28 (Debian 12) does not find it. CUDA 13 and cuDNN 9 are what the pinned
# onnxruntime-gpu is linked against; NVIDIA's image brings them, and no Python.
ARG BASE=python:3.11-slim

FROM ${BASE} AS base
RUN command -v python3 \
    || { apt-get update && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*; }

FROM base AS builder
ARG RUNTIME=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY constraints.txt constraints.hashes.txt ./
RUN python3 -m venv /opt/edgekd \
    && /opt/edgekd/bin/pip install --upgrade -c constraints.txt pip
# By hash, all but torch and, in the GPU image, onnxruntime.
RUN [ "$RUNTIME" != cpu ] || /opt/edgekd/bin/pip install --require-hashes --no-deps \
        -c constraints.txt -r constraints.hashes.txt
COPY pyproject.toml README.md LICENSE ./
COPY edgekd edgekd
COPY profiles profiles
COPY export export
RUN /opt/edgekd/bin/pip wheel --no-deps --wheel-dir /wheels .
RUN [ "$RUNTIME" = cpu ] || TORCH_INDEX=; \
    /opt/edgekd/bin/pip install -c constraints.txt \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
        "$(echo /wheels/edgekd-*.whl)[${RUNTIME},demo]"

FROM base AS final
ARG RUNTIME=cpu
LABEL org.opencontainers.image.title="edgekd" \
      org.opencontainers.image.description="A fine-tuned encoder, your text and a latency budget in; a validated, deployable student out (${RUNTIME})." \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --create-home --uid 10001 edgekd \
    && install -d -o edgekd -g edgekd /workspace
COPY --from=builder /opt/edgekd /opt/edgekd
# Every cache lies in the folder that the user mounts: it outlives the container, any --user may write it, and with a
# read-only root file system it is all that need be writable.
ENV ORT_DISABLE_TELEMETRY=1 PATH=/opt/edgekd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/workspace/.cache \
    EDGEKD_CACHE=/workspace/.cache/edgekd
# A number: Kubernetes' runAsNonRoot cannot tell who a name is.
USER 10001:10001
WORKDIR /workspace
HEALTHCHECK NONE
ENTRYPOINT ["edgekd"]
CMD ["--help"]
