# One image with coordinator, worker, tern and its model tools:
#   docker build -t tern:cpu .

FROM debian:12 AS build
WORKDIR /src
COPY . .
RUN scripts/setup \
 && bazel build --config=cpu //coordinator //worker //cli:tern \
      //tools:tern_model \
 && install -D -t /opt/tern/bin \
      bazel-bin/coordinator/coordinator bazel-bin/worker/worker \
      bazel-bin/cli/tern bazel-bin/tools/tern_model

FROM debian:12-slim
# Abseil, c-ares, OpenSSL and RE2 come along as what these depend on.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      libgrpc++1.51 libhwloc15 libpcre2-8-0 libprotobuf32 libutf8proc2 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/tern/bin /opt/tern/bin
ENV PATH=/opt/tern/bin:$PATH
USER 65532:65532
CMD ["tern", "help"]
