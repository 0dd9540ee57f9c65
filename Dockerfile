# model-analyzer. Build: docker build -t model-analyzer .   More: docs/docker.md
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE} AS dependencies
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_CERT=/opt/build/ca.pem
COPY container /src/container
WORKDIR /src
RUN container/build-venv.sh
COPY pyproject.toml requirements.lock ./
# The dependencies are those of a package with nothing in it, so that a change of ours does not install them again.
RUN /opt/build/bin/pip install -c requirements.lock hatchling \
    && python3 -m venv --without-pip /opt/model-analyzer \
    && mkdir model_analyzer && echo '__version__ = "0"' > model_analyzer/__init__.py && touch README.md LICENSE \
    && /opt/build/bin/pip --python /opt/model-analyzer/bin/python install --no-compile -c requirements.lock '.[docker]' \
    && /opt/build/bin/pip --python /opt/model-analyzer/bin/python uninstall --yes model-analyzer \
    && python3 container/slim.py /opt/model-analyzer/lib/python3*/site-packages

FROM dependencies AS package
COPY README.md LICENSE ./
COPY model_analyzer model_analyzer
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/build/bin/pip --python /opt/model-analyzer/bin/python install --no-deps --no-index --root /package /wheels/*.whl

FROM ${BASE_IMAGE}
# python:3.12-slim has Python's own library as sources (docker-library/python#615): half of each start would be to compile it.
RUN python3 -m compileall -q -x '/(test|tests|idlelib|lib2to3|turtledemo|site-packages|dist-packages)/' \
    "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=dependencies /opt/model-analyzer /opt/model-analyzer
COPY --from=package /package/ /
# A named volume that is mounted here takes its owner.
RUN mkdir -p /results && chown 1000:1000 /results
# Nothing needs to be written but /tmp and the export path. The last one: messages say what to add to docker run.
ENV PATH=/opt/model-analyzer/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MODEL_ANALYZER_IMAGE=1
USER 1000:1000
WORKDIR /results
ENTRYPOINT ["model-analyzer"]
ARG VERSION=dev
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="model-analyzer" \
    org.opencontainers.image.description="Measures models on NVIDIA Triton Inference Server at every batch size and load" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.created="${CREATED}"
