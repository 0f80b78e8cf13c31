# One image, three roles (api, worker, migrate): the command says which. Build with --build-arg EXTRAS=api for one without torch.
FROM python:3.12-slim AS base
ARG EXTRAS=all
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 PRUNECTL_HOME=/var/lib/prunectl
WORKDIR /src
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY core core
COPY worker worker
COPY api api
COPY cli cli
COPY migrations migrations
RUN pip install ".[${EXTRAS}]"
# TextPruner pins a numpy that current Pythons have no wheel of: it goes in without its dependencies, which the worker extra covers.
RUN if [ "$EXTRAS" = all ] || [ "$EXTRAS" = worker ]; then pip install --no-deps textpruner==1.1.post2; fi
RUN useradd --create-home --uid 1000 prunectl && mkdir -p /var/lib/prunectl /storage /models && chown prunectl /var/lib/prunectl /storage
USER prunectl
WORKDIR /home/prunectl
ENTRYPOINT ["prunectl"]
CMD ["--help"]
