# The main experiment in a container, on the CPU:
#     docker build -t jepa-mpc . && docker run --rm -v "$PWD/runs:/app/runs" jepa-mpc out=runs/reach
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends libegl1 libgl1 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
ENV MUJOCO_GL=egl PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1

# PyTorch first and alone: the largest layer, and the build without CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install torch==2.13.0 --index-url "${TORCH_INDEX}"

COPY . .
RUN pip install -c .ci/constraints.txt -e ".[test]"

ENTRYPOINT ["python", "experiments/zero_shot_reach.py"]
