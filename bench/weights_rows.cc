#include "bench/weights_rows.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "blob/blob_service.h"
#include "blob/content_hash.h"
#include "blob/model_content.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "kernels/head.h"
#include "model/model_file.h"
#include "util/clock.h"
#include "util/credentials.h"
#include "util/status_macros.h"
#include "worker/grpc_weight_source.h"
#include "worker/model_cache.h"
#include "worker/stage_weights.h"
#include "worker/thread_pool.h"
#include "worker/weight_fetcher.h"
#include "worker/weight_source.h"

namespace tern {
namespace {

using Source = std::shared_ptr<const ModelSource>;

int NumProcessors() {
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// Runs `once`, which returns the bytes it has done, until there is enough to
// tell; once before that, so that the files are in the page cache.
template <typename Once>
void Measure(benchmark::State& state, const Once& once) {
  absl::StatusOr<int64_t> done = once();
  int64_t n_bytes = 0;
  for (auto _ : state) {
    if (done.ok()) done = once();
    if (!done.ok()) {
      state.SkipWithError(done.status().ToString().c_str());
      return;
    }
    n_bytes += *done;
  }
  state.SetBytesProcessed(n_bytes);
}

void HashFiles(benchmark::State& state, const Source& source) {
  Measure(state, [&]() -> absl::StatusOr<int64_t> {
    ASSIGN_OR_RETURN(const std::vector<ModelFile> files, source->OpenFiles());
    HashOptions options;
    options.n_threads = static_cast<int>(state.range(0));
    ASSIGN_OR_RETURN(const HashedModel hashed, HashModel(files, options));
    return hashed.hashed_bytes;
  });
}

// A peer that has the whole model.
struct Peer {
  static absl::StatusOr<std::unique_ptr<Peer>> Start(const Source& source) {
    auto peer = std::make_unique<Peer>();
    HashOptions options;
    options.n_threads = NumProcessors();
    ASSIGN_OR_RETURN(peer->content, OpenModelContent(*source, options));
    peer->store.Add(peer->content);
    ASSIGN_OR_RETURN(peer->credentials, Credentials::Create({}));
    peer->service = std::make_unique<BlobServiceImpl>(
        BlobServiceImpl::Options(), &peer->store, peer->credentials.get(),
        Clock::System());
    grpc::ServerBuilder builder;
    RETURN_IF_ERROR(peer->credentials->AddListeningPort("127.0.0.1:0", &builder,
                                                        &peer->port));
    builder.RegisterService(peer->service.get());
    peer->server = builder.BuildAndStart();
    if (peer->server == nullptr) {
      return absl::UnavailableError("cannot listen on 127.0.0.1");
    }
    return peer;
  }
  ~Peer() {
    if (server != nullptr) server->Shutdown();
  }

  std::shared_ptr<const ModelContent> content;
  ContentStore store;
  std::unique_ptr<Credentials> credentials;
  std::unique_ptr<BlobServiceImpl> service;
  int port = 0;
  std::unique_ptr<grpc::Server> server;
};

absl::StatusOr<int64_t> Fetch(const Peer& peer, const std::string& folder) {
  ModelCache::Options options;
  options.folder = folder;
  ASSIGN_OR_RETURN(const std::unique_ptr<ModelCache> cache,
                   ModelCache::Create(options));
  ASSIGN_OR_RETURN(
      const std::shared_ptr<CachedModel> replica,
      cache->Open(peer.content->content_id(), peer.content->manifest_text()));
  ASSIGN_OR_RETURN(std::shared_ptr<WeightSource> source,
                   MakeGrpcWeightSource(absl::StrCat("127.0.0.1:", peer.port),
                                        kWorkerName, *peer.credentials));
  std::vector<int> all(replica->blocks().size());
  std::iota(all.begin(), all.end(), 0);
  RETURN_IF_ERROR(FetchBlocks(
                      replica.get(), all, {std::move(source)}, FetchOptions(),
                      [](int64_t, int64_t) {}, [] { return false; })
                      .status());
  return peer.content->manifest().part_bytes();
}

void FetchFromPeer(benchmark::State& state, const Source& source) {
  const absl::StatusOr<std::unique_ptr<Peer>> peer = Peer::Start(source);
  if (!peer.ok()) {
    state.SkipWithError(peer.status().ToString().c_str());
    return;
  }
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() /
      absl::StrCat("tern-fetch-", (*peer)->port);
  Measure(state, [&]() -> absl::StatusOr<int64_t> {
    // Of the time before; a moment.
    std::filesystem::remove_all(folder);
    return Fetch(**peer, folder.string());
  });
  std::filesystem::remove_all(folder);
}

void LoadStage(benchmark::State& state, const Source& source) {
  ThreadPool pool(NumProcessors());
  const StageSpec spec = {{0, source->config().n_layers, true, true},
                          HeadMode::kInt8};
  Measure(state, [&]() -> absl::StatusOr<int64_t> {
    ASSIGN_OR_RETURN(const std::vector<ModelFile> files, source->OpenFiles());
    RETURN_IF_ERROR(
        LoadStageWeights(
            source, spec, &pool, [](int64_t, int64_t) {}, [] { return false; })
            .status());
    int64_t n_bytes = 0;
    for (const ModelFile& file : files) {
      for (const ModelFile::Part& part : file.parts) n_bytes += part.bytes;
    }
    return n_bytes;
  });
}

}  // namespace

void RegisterWeightsRows(std::shared_ptr<const ModelSource> source) {
  const auto add = [](const char* name, auto run) {
    return benchmark::RegisterBenchmark(name, run)
        ->UseRealTime()
        ->MeasureProcessCPUTime()
        ->Unit(benchmark::kMillisecond);
  };
  auto* hash = add("Weights/Hash",
                   [source](benchmark::State& s) { HashFiles(s, source); })
                   ->ArgName("threads")
                   ->Arg(1);
  if (NumProcessors() > 1) hash->Arg(NumProcessors());
  add("Weights/FetchFromPeer",
      [source](benchmark::State& s) { FetchFromPeer(s, source); });
  add("Weights/Pack", [source](benchmark::State& s) { LoadStage(s, source); });
}

}  // namespace tern
