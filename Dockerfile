# One recipe for every service:
#   docker build --build-arg SERVICE=orchestrator -t rollcall/orchestrator .
# SERVICE is a folder of services/. No secret is part of an image: all come from the environment.
FROM python:3.13-slim AS build
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never \
    UV_PROJECT_ENVIRONMENT=/app/venv UV_CACHE_DIR=/var/cache/uv
RUN python -m pip install --no-cache-dir --quiet "uv>=0.8,<1"
WORKDIR /src
# The packages that all services stand on: a layer that lasts until uv.lock changes.
COPY pyproject.toml uv.lock ./
RUN uv export --quiet --frozen --no-dev --no-emit-workspace --all-packages -o /tmp/requirements.txt \
 && uv venv --quiet --python "$(command -v python3)" /app/venv \
 && uv pip install --quiet --require-hashes --python /app/venv/bin/python -r /tmp/requirements.txt
COPY README.md ./
COPY libs libs
COPY services services
ARG SERVICE
RUN test -d "services/$SERVICE" || { echo "SERVICE=$SERVICE is not a folder of services/" >&2; exit 1; } \
 && uv sync --quiet --frozen --no-dev --no-editable --package "$SERVICE" \
 && printf '#!/bin/sh\nexec /app/venv/bin/python -m %s "$@"\n' "$(echo "$SERVICE" | tr - _)" >/app/run \
 && chmod 755 /app/run

FROM python:3.13-slim
# gpgv checks the signatures of image feeds.
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends gpgv >/dev/null \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 rollcall \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/rollcall --no-create-home rollcall \
 && install -d -o rollcall -g rollcall -m 750 /var/lib/rollcall \
 && install -d -o rollcall -g rollcall /run/definitions
COPY --from=build /app /app
COPY deploy/container/healthcheck.py /app/healthcheck.py
ENV PATH=/app/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    ROLLCALL_LOG_FORMAT=json ROLLCALL_METRICS_PORT=9100 ROLLCALL_STATE_DIR=/var/lib/rollcall
USER rollcall
WORKDIR /var/lib/rollcall
EXPOSE 9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "/app/healthcheck.py"]
CMD ["/app/run"]
