# The study's environment: docker build --target cpu . (or --target cuda); make container does it.
# docker run --rm -it -v "$PWD":/study eqvae-study:cpu sh -c 'python -m study use smoke && dvc repro'
FROM python:3.12-slim-bookworm AS system
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /study
ENV DVC_NO_ANALYTICS=1 MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1
WORKDIR /opt/study
COPY requirements.lock pyproject.toml ./
RUN python -m venv /opt/study/.venv
ENV PATH=/opt/study/.venv/bin:$PATH

# Torch as the lock has it, without the libraries of a GPU.
FROM system AS cpu
RUN grep --invert-match --extended-regexp '^(nvidia-|cuda-|triton)' requirements.lock > cpu.lock \
    && grep --extended-regexp '^torch(vision)?==' cpu.lock > torch.lock \
    && pip install --no-deps --index-url https://download.pytorch.org/whl/cpu \
        --requirement torch.lock \
    && pip install --no-deps --requirement cpu.lock
WORKDIR /study
ENV PYTHONPATH=/study
CMD ["python", "-m", "study", "--help"]

# The lock's wheels bring CUDA with them; the driver is the host's.
FROM system AS cuda
RUN pip install --no-deps --requirement requirements.lock
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /study
ENV PYTHONPATH=/study
CMD ["python", "-m", "study", "--help"]
