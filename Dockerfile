# CPU:   docker build --tag hcl --build-arg EXTRA_INDEX_URL=<PyTorch's index of CPU builds> .
# CUDA:  docker build --tag hcl --build-arg EXTRA=cuda13 .   (cuda12: with EXTRA_INDEX_URL=<PyTorch's index of CUDA 12 builds>)
# Run:   docker run --gpus all --shm-size 8g --volume /data:/data --volume "$PWD/runs:/work/runs" hcl \
#            hcl-train --config voc_vits16 --data.root /data/VOC2012
FROM python:3.11-slim

# cpu, cuda12 or cuda13. PyTorch brings its own CUDA; the host brings the driver.
ARG EXTRA=cpu
ARG EXTRA_INDEX_URL=

# Needed to build pydensecrf, and at run time by Triton and torch.compile.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

COPY . /src
RUN PIP_EXTRA_INDEX_URL="$EXTRA_INDEX_URL" pip install --no-cache-dir --constraint /src/constraints.txt \
        "/src[$EXTRA,evaluation,export,hub]" \
    && rm -rf /src

RUN useradd --create-home --uid 1000 hcl && install --directory --owner hcl /work /work/runs /cache
ENV HCL_CACHE=/cache \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
USER hcl
WORKDIR /work
CMD ["hcl-train", "--help"]
