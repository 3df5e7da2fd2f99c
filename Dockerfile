# neuroprior on a processor.
#   docker build -t neuroprior .
#   docker run --rm -v "$PWD:/work" neuroprior demo --out runs/demo
#   docker run --rm -v "$PWD:/work" neuroprior run /recipes/quick.yaml     (data: /work/data)
# Files that it writes belong to user 1000; with another id of yours add: --user "$(id -u):$(id -g)"
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 \
    HOME=/home/neuroprior NEUROPRIOR_DATA=/work/data NUMBA_CACHE_DIR=/tmp/numba MPLCONFIGDIR=/tmp/matplotlib

# What changes seldom comes first: a change of the code leaves this layer as it is.
COPY constraints.txt /src/
RUN pip install --no-compile -c /src/constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu torch

COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
RUN pip install --no-compile -c /src/constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu /src
COPY recipes /recipes

RUN useradd --uid 1000 --create-home neuroprior && mkdir /work && chown 1000:1000 /work
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["neuroprior"]
CMD ["--help"]
