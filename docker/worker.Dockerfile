# A worker host: one Celery worker per GPU that the container sees, or one on the CPU. From the repository's root:
#   docker build -f docker/worker.Dockerfile -t dreamq-worker .
#   docker build -f docker/worker.Dockerfile -t dreamq-worker-gpu --build-arg REQUIREMENTS=requirements-gpu.txt .
# The CUDA libraries come with TensorFlow's wheels, so both start from the same image; the driver is the host's.
FROM python:3.12-slim-bookworm

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 TF_CPP_MIN_LOG_LEVEL=2

# requirements.txt for the CPU, requirements-gpu.txt for NVIDIA GPUs.
ARG REQUIREMENTS=requirements.txt
# What the storage needs beyond a folder, such as s3fs==2026.9.0 for s3:// URLs; give it with its version.
ARG STORAGE_PACKAGE=""

WORKDIR /srv/dreamq
COPY requirements.txt requirements-gpu.txt ./
# hadolint ignore=DL3013
RUN pip install --no-cache-dir -r "$REQUIREMENTS" \
    && if [ -n "$STORAGE_PACKAGE" ]; then pip install --no-cache-dir "$STORAGE_PACKAGE"; fi

COPY pyproject.toml README.md LICENSE ./
COPY shared ./shared
COPY tasks ./tasks
COPY workers ./workers
COPY api ./api
RUN pip install --no-cache-dir --no-deps .

# A volume that is mounted here for the first time takes over this owner.
RUN useradd --uid 10001 --create-home dreamq \
    && install -d -o dreamq -g dreamq /data /weights
USER 10001

CMD ["python", "-m", "workers"]
