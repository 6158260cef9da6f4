# What calls of Python programs run in: Python, cloudpickle and gridcore, nothing else. From the top
# folder, with the Python that the programs have (it is part of the name that they expect):
#
#   docker build -f deploy/worker.Dockerfile --build-arg PYTHON=3.13 -t gridcore-worker:3.13 .
#
# For the packages that calls need, make an image from it and name that one in
# gridcore.init(hub, image="registry.example/mine:1"):
#
#   FROM gridcore-worker:3.13
#   RUN pip install --no-cache-dir numpy
#
# For several architectures: docker buildx build --platform linux/amd64,linux/arm64 --push ...
ARG PYTHON=3.13
FROM python:${PYTHON}-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY gridcore gridcore
COPY computehub computehub
COPY gridnode gridnode
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && pip wheel --no-cache-dir --no-deps --wheel-dir /wheels 'cloudpickle>=3.1'

FROM python:${PYTHON}-slim
# Without what hub and node need: the runner has no use for it.
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --no-deps /wheels/*.whl
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 65534:65534
WORKDIR /tmp
CMD ["python3", "-m", "gridcore.sdk.grid.runner"]
