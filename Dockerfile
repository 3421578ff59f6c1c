# Images that hold the package, its weights and the embedded scans. They run as a user without rights.
#
#   docker build -t interslice .                              for CPUs
#   docker build -t interslice --build-arg DEVICE=cuda .      for NVIDIA GPUs
#   docker run --rm -v "$PWD":/data interslice run scan.nii.gz -o results
#
# The package index's torch for Linux holds CUDA. A CPU image is gigabytes smaller with --build-arg TORCH_INDEX=URL, the
# URL of the index of PyTorch's CPU builds, which pytorch.org names.
ARG PYTHON=3.11
ARG DEVICE=cpu

FROM docker.io/library/python:${PYTHON}-slim-bookworm AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1
COPY requirements.txt requirements-dev.txt /build/
# The versions that the tests run with: what is not asked for is not installed.
RUN grep -hE '^[A-Za-z0-9_.-]+==' /build/requirements.txt /build/requirements-dev.txt > /build/constraints.txt

FROM base AS wheel
COPY . /build/source
RUN pip install -c /build/constraints.txt hatchling \
    && cd /build/source && python -m hatchling build -t wheel -d /build/wheels

FROM base AS torch-cpu
ARG TORCH_INDEX=
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' /build/constraints.txt)"

FROM base AS torch-cuda
RUN pip install "$(grep '^torch==' /build/constraints.txt)"

FROM torch-${DEVICE} AS interslice
COPY --from=wheel /build/wheels /build/wheels
RUN pip install -c /build/constraints.txt "$(ls /build/wheels/interslice-*.whl)[all]" && rm -r /build \
    && useradd --uid 1000 --no-create-home interslice && mkdir /data && chown interslice:interslice /data
# With --user, whoever that is: what libraries keep beside results goes into the container's own /tmp.
ENV HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib NUMBA_CACHE_DIR=/tmp/numba
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["interslice"]
CMD ["--help"]
