# syntax=docker/dockerfile:1
# The command merit on NVIDIA GPUs. The libraries of CUDA come with JAX from pip; the host has the driver (580 or newer for CUDA
# 13, 525 or newer for CUDA 12) and the NVIDIA Container Toolkit. From the root of a clone:
#
#     docker build -f docker/cuda.Dockerfile -t merit:cuda .                           # CUDA 12; --build-arg CUDA=cuda13 for CUDA 13
#     docker run --rm --gpus all -v "$PWD:/work" -v merit-cache:/cache merit:cuda run --config=quickstart_text --workdir=runs/text
#
# /work is where runs are written and data is read; /cache keeps what is downloaded from the hub and what is compiled.
# For files that belong to you instead of the user 1000: --user "$(id -u):$(id -g)".

FROM python:3.12-slim AS build
ARG CUDA=cuda12
ARG EXTRAS=figures,gguf,hub,parquet,search
WORKDIR /src
RUN python -m venv /opt/merit
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY merit_jax merit_jax
COPY models models
COPY configs configs
COPY launch launch
COPY examples examples
RUN /opt/merit/bin/pip install --no-cache-dir -c constraints.txt ".[${CUDA},${EXTRAS}]"

FROM python:3.12-slim
COPY --from=build /opt/merit /opt/merit
RUN useradd --uid 1000 --create-home merit \
    && mkdir /work /cache \
    && chown merit:merit /work /cache \
    && chmod 1777 /work /cache
ENV PATH="/opt/merit/bin:${PATH}" \
    HOME=/cache \
    HF_HOME=/cache/huggingface \
    XDG_CACHE_HOME=/cache \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1
USER merit
WORKDIR /work
ENTRYPOINT ["merit"]
