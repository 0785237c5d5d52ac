# Pin it by the digest that the tag has now, and keep what it was:
# docker build --build-arg BASE=python:3.13-slim@$(docker buildx imagetools inspect python:3.13-slim --format '{{.Manifest.Digest}}') .
ARG BASE=python:3.13-slim
FROM ${BASE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
WORKDIR /src
# The locked releases alone, by hash, and wheels alone: an sdist would run code to build itself.
COPY locks locks
RUN python -m venv /opt/feedsvc && /opt/feedsvc/bin/pip install --no-cache-dir \
      --require-hashes --only-binary=:all: -r locks/service.txt \
    && python -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir \
      --require-hashes --only-binary=:all: -r locks/build.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY streams streams
COPY feedsvc feedsvc
ENV FEEDSVC_NATIVE=required
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation -w /opt/wheel . \
    && /opt/feedsvc/bin/pip install --no-cache-dir --no-deps --no-index /opt/wheel/*.whl

FROM ${BASE}
RUN useradd --system --create-home feedsvc
COPY --from=build /opt/feedsvc /opt/feedsvc
WORKDIR /srv
COPY config config
ENV PATH=/opt/feedsvc/bin:$PATH FEEDSVC_SERVER__HOST=0.0.0.0 FEEDSVC_SERVER__SHUTDOWN_DELAY=5
USER feedsvc
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=2s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/live', timeout=1)"]
ENTRYPOINT ["feedsvc"]
CMD ["serve"]
