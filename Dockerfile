# syntax=docker/dockerfile:1
# The worker, and the `chimera` tools beside it. Every dependency has a wheel; only the core is compiled, by a compiler that
# is a wheel too.
FROM python:3.11.15-slim-bookworm AS base
ENV PATH=/opt/chimera/bin:$PATH \
    PYTHONUNBUFFERED=1

FROM base AS build
RUN python -m venv /opt/chimera && python -m venv /opt/build
WORKDIR /source
COPY requirements requirements
RUN --mount=type=cache,target=/root/.cache/pip pip install --only-binary :all: --require-hashes -r requirements/worker.txt
# The package is built with locked tools, which stay out of the worker's environment.
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/build/bin/pip install --only-binary :all: --require-hashes -r requirements/build.txt
COPY pyproject.toml hatch_build.py README.md topics.yaml ./
COPY docs/runbook.md docs/
COPY schemas schemas
COPY pipeline pipeline
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . && pip install --no-deps /wheels/*.whl

FROM base
RUN groupadd --system --gid 10001 chimera && \
    useradd --system --uid 10001 --gid 10001 --create-home --home-dir /var/lib/chimera chimera
COPY --from=build /opt/chimera /opt/chimera
# The container's network is the limit, not its loopback interface. Nothing is written to the file system: Python's bytecode
# is in the image.
ENV CHIMERA_WORKER__WEB_HOST=0.0.0.0 \
    CHIMERA_MONITOR__WEB_HOST=0.0.0.0 \
    PYTHONDONTWRITEBYTECODE=1
# A number, so that Kubernetes can see that it isn't root.
USER 10001:10001
WORKDIR /var/lib/chimera
EXPOSE 6066 6067
# /live answers as long as the worker's event loop runs; /ready would be red while ClickHouse is away.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 CMD ["python", "-m", "pipeline.worker.health"]
CMD ["faust", "-A", "pipeline", "worker", "-l", "info"]
