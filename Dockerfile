# A digest pins the image that Forebay is built on, and another registry can serve it:
#   docker build --build-arg PYTHON_IMAGE=python:3.13-slim-trixie@sha256:… .
ARG PYTHON_IMAGE=python:3.13-slim-trixie


FROM ${PYTHON_IMAGE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /build

# Before the source, so that a change to Forebay alone takes these layers from the cache.
# Wheels only: building a source archive would fetch tools that no lock holds, and needs a compiler.
COPY requirements/run.lock requirements/build.lock requirements/
RUN python -m venv --without-pip /opt/forebay \
    && pip --python /opt/forebay/bin/python install --require-hashes --only-binary :all: -r requirements/run.lock \
    && pip install --require-hashes --only-binary :all: -r requirements/build.lock

# Nothing is fetched from here on: what isn't in a lock doesn't get in.
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-index --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/forebay/bin/python install --no-index --no-deps dist/*.whl


FROM ${PYTHON_IMAGE}

LABEL org.opencontainers.image.title="forebay" \
      org.opencontainers.image.licenses="Apache-2.0"

# The ids are fixed, since the volume's files keep them from one image to the next.
RUN groupadd --gid 10001 forebay \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /data \
        --shell /usr/sbin/nologin forebay \
    && install --directory --owner=forebay --group=forebay --mode=0750 /data

# Of the first stage only the environment comes along, at the same path: its scripts name their interpreter by it.
COPY --from=build /opt/forebay /opt/forebay

# pip compiled the modules, and the user may not write there. Unbuffered, the last lines before a crash are in the log.
ENV PATH=/opt/forebay/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DATABASE_URL=sqlite:////data/forebay.db

# In numbers, so that Kubernetes can tell that it isn't root (runAsNonRoot).
USER 10001:10001

# A DATABASE_URL with a relative path lands on the volume too.
WORKDIR /data
VOLUME /data

EXPOSE 3000

# Answers that are no 2xx raise, and so do refused connections. A proxy from the environment isn't asked: it can't see
# this container's loopback. Seldom, since each check starts an interpreter on a share of a core.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:%s/health/live' % (os.environ.get('SERVER_PORT') or '3000'), timeout=4)"]

STOPSIGNAL SIGTERM
ENTRYPOINT ["forebay"]
CMD ["serve"]
