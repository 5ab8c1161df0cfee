# syntax=docker/dockerfile:1
# The command merit on CPUs. From the root of a clone:
#
#     docker build -f docker/cpu.Dockerfile -t merit:cpu .
#     docker run --rm -v "$PWD:/work" -v merit-cache:/cache merit:cpu run --config=quickstart_text --workdir=runs/text
#
# /work is where runs are written and data is read; /cache keeps what is downloaded from the hub and what is compiled.
# For files that belong to you instead of the user 1000: --user "$(id -u):$(id -g)".

FROM python:3.12-slim AS build
ARG EXTRAS=figures,gguf,hub,parquet,search
WORKDIR /src
RUN python -m venv /opt/merit
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY merit_jax merit_jax
COPY models models
COPY configs configs
COPY launch launch
COPY examples examples
RUN /opt/merit/bin/pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]"

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
    PYTHONUNBUFFERED=1
USER merit
WORKDIR /work
ENTRYPOINT ["merit"]
