# The API, its web page and the `dreamq` command: no TensorFlow. Built from the repository's root:
#   docker build -f docker/api.Dockerfile -t dreamq-api .
FROM python:3.12-slim-bookworm AS api

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# What the storage needs beyond a folder, such as s3fs==2026.9.0 for s3:// URLs; give it with its version.
ARG STORAGE_PACKAGE=""

WORKDIR /srv/dreamq
COPY requirements-api.txt ./
# hadolint ignore=DL3013
RUN pip install --no-cache-dir -r requirements-api.txt \
    && if [ -n "$STORAGE_PACKAGE" ]; then pip install --no-cache-dir "$STORAGE_PACKAGE"; fi

COPY pyproject.toml README.md LICENSE ./
COPY shared ./shared
COPY tasks ./tasks
COPY workers ./workers
COPY api ./api
RUN pip install --no-cache-dir --no-deps .

# A volume that is mounted here for the first time takes over this owner.
RUN useradd --uid 10001 --no-create-home dreamq \
    && install -d -o dreamq -g dreamq /data /weights /keys
USER 10001

EXPOSE 8080
CMD ["python", "-m", "api", "--host", "0.0.0.0", "--port", "8080"]


# The same with Flower, Celery's monitor.
FROM api AS flower
USER 0
RUN pip install --no-cache-dir flower==2.2.0
USER 10001
EXPOSE 5555
CMD ["celery", "-A", "shared.celery_app", "flower", "--port=5555", "--read-only"]
