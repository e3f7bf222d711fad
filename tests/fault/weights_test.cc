// Workers without the model's file, with a damaged one, or killed while they
// fetch: the answers are those of a cluster where everyone has the file.

#include <signal.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "model/manifest.h"
#include "model/model_file.h"
#include "model/model_source.h"
#include "proto/tern/v1/cluster.pb.h"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/local_cluster.h"
#include "tests/integration/process.h"
#include "tests/testing/tiny_model.h"

namespace tern {
namespace {

namespace fs = std::filesystem;

constexpr char kModel[] = "models/demo/shakespeare-demo-i2_s.gguf";
constexpr absl::Duration kPatience = absl::Seconds(60);

std::string NewFolder() {
  std::string folder = absl::StrCat(::testing::TempDir(), "/weights-XXXXXX");
  return mkdtemp(&folder[0]) ? folder : "";
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// A worker that has no file.
std::vector<std::string> WithoutFile(const std::string& cache) {
  return {"--model=", "--cache_dir=" + cache};
}

// The demo model with one bit of a byte flipped: in the middle of a tensor, or
// in its last layer.
std::string DamagedModel(absl::string_view tensor = "") {
  std::string bytes = ReadFile(kModel);
  size_t at = bytes.size() - 5000;
  if (!tensor.empty()) {
    const auto source = ModelSource::Open(kModel);
    EXPECT_TRUE(source.ok()) << source.status();
    const auto files = (*source)->OpenFiles();
    EXPECT_TRUE(files.ok()) << files.status();
    for (const ModelFile::Part& part : (*files)[0].parts) {
      if (part.name == tensor) at = part.offset + part.bytes / 2;
    }
    EXPECT_LT(at, bytes.size() - 5000) << "no tensor " << tensor;
  }
  bytes[at] ^= 2;
  const std::string path = NewFolder() + "/shakespeare-demo-i2_s.gguf";
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

std::string Generate(LocalCluster& cluster) {
  v1::GenerateRequest request;
  request.set_text("ROMEO:\n");
  request.mutable_sampling()->set_temperature(0.8f);
  request.mutable_sampling()->set_seed(7);
  request.mutable_stopping()->set_max_output_tokens(40);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  v1::GenerateResponse response;
  const grpc::Status status =
      cluster.inference().Generate(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message() << cluster.Logs();
  return response.candidates_size() > 0 ? response.candidates(0).text() : "";
}

// By a cluster where everyone has the file.
std::string Expected() {
  auto cluster = LocalCluster::Start({});
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  const std::string text = cluster.ok() ? Generate(**cluster) : "";
  EXPECT_NE(text, "");
  return text;
}

// Waits until a process has said something.
bool AwaitLog(Process& process, absl::string_view text) {
  const absl::Time deadline = absl::Now() + kPatience;
  while (!absl::StrContains(process.Log(), text)) {
    if (absl::Now() > deadline) return false;
    // Also a pause.
    if (process.Wait(absl::Milliseconds(20)).ok()) {
      return absl::StrContains(process.Log(), text);
    }
  }
  return true;
}

// The number behind the last "<key>=" of a log; -1 without one.
int64_t LastNumber(const std::string& log, const std::string& key) {
  const size_t at = log.rfind(" " + key + "=");
  if (at == std::string::npos) return -1;
  const size_t begin = at + key.size() + 2;
  int64_t number = -1;
  return absl::SimpleAtoi(
             log.substr(begin, log.find_first_of(" \n", begin) - begin),
             &number)
             ? number
             : -1;
}

// The folder of the only model in a cache; empty when there is none yet.
std::string CachedModelFolder(const std::string& cache) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(cache + "/models", error)) {
    return entry.path().string();
  }
  return "";
}

// Bytes of blocks that a cache's only model has.
int64_t KeptBytes(const std::string& cache) {
  const std::string folder = CachedModelFolder(cache);
  if (folder.empty()) return 0;
  const auto manifest = ParseManifest(ReadFile(folder + "/manifest"));
  const std::string states = ReadFile(folder + "/blocks");
  if (!manifest.ok()) return 0;
  const std::vector<ManifestBlock> blocks = manifest->Blocks();
  if (states.size() != 64 + blocks.size()) return 0;
  int64_t bytes = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (states[64 + i] == 1) bytes += blocks[i].bytes;
  }
  return bytes;
}

TEST(Weights, WorkersWithoutAFileServeTheSameTokens) {
  const std::string expected = Expected();
  LocalCluster::Options options;
  options.stages = 2;
  options.workers = 0;
  options.wait_until_ready = false;
  options.tls = true;
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  // On one machine they share a cache.
  const std::string cache = NewFolder();
  for (int i : {0, 1}) {
    ASSERT_TRUE(cluster.StartWorker(i, WithoutFile(cache)).ok());
  }
  ASSERT_TRUE(cluster.WaitUntilReady().ok()) << cluster.Logs();
  EXPECT_EQ(Generate(cluster), expected);
  // A second life needs nobody.
  for (int i : {0, 1}) {
    cluster.worker(i).Signal(SIGKILL);
    ASSERT_TRUE(cluster.worker(i).Wait(kPatience).ok());
  }
  ASSERT_TRUE(cluster.WaitUntilReady(false).ok());
  for (int i : {0, 1}) {
    ASSERT_TRUE(cluster.StartWorker(i, WithoutFile(cache)).ok());
  }
  ASSERT_TRUE(cluster.WaitUntilReady().ok()) << cluster.Logs();
  EXPECT_EQ(Generate(cluster), expected);
  for (int i : {0, 1}) {
    EXPECT_EQ(LastNumber(cluster.worker(i).Log(), "fetched_bytes"), 0);
  }
}

// Several files, and matrices large enough that a stage leaves others' out.
TEST(Weights, ADirectoryOfSafetensorsIsFetchedAsWell) {
  testing::TinyModelOptions tiny;
  tiny.hidden_size = 512;
  tiny.ffn_size = 1024;
  tiny.n_heads = 8;
  tiny.head_dim = 64;
  tiny.scales = testing::TinyScales::kHalf;
  LocalCluster::Options options;
  options.model = testing::WriteTinySafetensors(
      testing::TinySafetensorsModel(tiny,
                                    testing::TinyPacking::kPackedReciprocal),
      2);
  options.stages = 2;
  std::string expected;
  {
    auto cluster = LocalCluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    expected = Generate(**cluster);
  }
  options.workers = 0;
  options.wait_until_ready = false;
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  const std::string caches[] = {NewFolder(), NewFolder()};
  for (int i : {0, 1}) {
    ASSERT_TRUE(cluster.StartWorker(i, WithoutFile(caches[i])).ok());
  }
  ASSERT_TRUE(cluster.WaitUntilReady().ok()) << cluster.Logs();
  EXPECT_EQ(Generate(cluster), expected);
  for (const std::string& cache : caches) {
    const auto manifest =
        ParseManifest(ReadFile(CachedModelFolder(cache) + "/manifest"));
    ASSERT_TRUE(manifest.ok()) << manifest.status();
    EXPECT_GT(KeptBytes(cache), 0);
    // The other stage's layer is not there.
    EXPECT_LT(KeptBytes(cache), manifest->part_bytes() - (300 << 10));
  }
  fs::remove_all(options.model);
}

TEST(Weights, AWorkerFetchesFromAPeerWhereTheCoordinatorSendsNothing) {
  const std::string expected = Expected();
  LocalCluster::Options options;
  options.coordinator_flags = {"--blob_service=false"};
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  ASSERT_TRUE(cluster.StartWorker(1, WithoutFile(NewFolder())).ok());
  ASSERT_TRUE(AwaitLog(cluster.worker(1), "event=stage_loaded"))
      << cluster.Logs();
  EXPECT_TRUE(absl::StrContains(cluster.worker(1).Log(), " from=\"worker 127."))
      << cluster.Logs();
  // The third one has a peer that has no file either.
  cluster.worker(0).Signal(SIGKILL);
  ASSERT_TRUE(cluster.worker(0).Wait(kPatience).ok());
  ASSERT_TRUE(cluster.StartWorker(2, WithoutFile(NewFolder())).ok());
  ASSERT_TRUE(AwaitLog(cluster.worker(2), "event=stage_loaded"))
      << cluster.Logs();
  cluster.worker(1).Signal(SIGKILL);
  ASSERT_TRUE(cluster.worker(1).Wait(kPatience).ok());
  EXPECT_EQ(Generate(cluster), expected);
}

TEST(Weights, AWorkerKilledWhileItFetchesGoesOnWhereItWas) {
  const std::string expected = Expected();
  LocalCluster::Options options;
  options.workers = 0;
  options.wait_until_ready = false;
  // The whole model takes three seconds.
  options.coordinator_flags = {"--blob_bandwidth=1048576"};
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  const std::string cache = NewFolder();
  ASSERT_TRUE(cluster.StartWorker(0, WithoutFile(cache)).ok());
  const absl::Time deadline = absl::Now() + kPatience;
  while (KeptBytes(cache) < 1 << 20 && absl::Now() < deadline) {
    ASSERT_FALSE(cluster.worker(0).Wait(absl::Milliseconds(5)).ok());
  }
  cluster.worker(0).Signal(SIGKILL);
  ASSERT_TRUE(cluster.worker(0).Wait(kPatience).ok());
  const int64_t kept = KeptBytes(cache);
  EXPECT_GE(kept, 1 << 20);
  ASSERT_FALSE(absl::StrContains(cluster.worker(0).Log(), "weights_fetched"))
      << "it was too late to kill it";

  ASSERT_TRUE(cluster.StartWorker(0, WithoutFile(cache)).ok());
  ASSERT_TRUE(cluster.WaitUntilReady().ok()) << cluster.Logs();
  const std::string log = cluster.worker(0).Log();
  const int64_t needed = LastNumber(log, "needed_bytes");
  EXPECT_GT(needed, kept);
  EXPECT_EQ(LastNumber(log, "fetched_bytes"), needed - kept) << log;
  EXPECT_EQ(KeptBytes(cache), needed);
  EXPECT_EQ(Generate(cluster), expected);
}

TEST(Weights, ADamagedFileIsRefusedOrMendedFromElsewhere) {
  const std::string expected = Expected();
  const std::string damaged = DamagedModel();
  LocalCluster::Options options;
  options.workers = 0;
  options.wait_until_ready = false;
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  ASSERT_TRUE(cluster.StartWorker(0, {"--model=" + damaged}).ok());
  ASSERT_TRUE(AwaitLog(cluster.worker(0), "event=stage_not_loaded"))
      << cluster.Logs();
  EXPECT_TRUE(absl::StrContains(cluster.worker(0).Log(),
                                "differs from the coordinator's"))
      << cluster.Logs();
  EXPECT_TRUE(cluster.WaitUntilReady(false).ok());
  cluster.worker(0).Signal(SIGKILL);
  ASSERT_TRUE(cluster.worker(0).Wait(kPatience).ok());

  // With a cache the damaged tensor alone comes from elsewhere.
  ASSERT_TRUE(
      cluster
          .StartWorker(1, {"--model=" + damaged, "--cache_dir=" + NewFolder()})
          .ok());
  ASSERT_TRUE(cluster.WaitUntilReady().ok()) << cluster.Logs();
  EXPECT_EQ(Generate(cluster), expected);
  const std::string log = cluster.worker(1).Log();
  EXPECT_TRUE(absl::StrContains(log, "event=own_file_differs")) << log;
  EXPECT_TRUE(absl::StrContains(log, "own file: ")) << log;
}

// Who cannot load one stage can load another.
TEST(Weights, WorkersSwapTheStagesThatTheyCannotLoad) {
  const std::string expected = Expected();
  const std::string in_first = DamagedModel("blk.0.ffn_down.weight");
  const std::string in_last = DamagedModel();
  // Cuts as asked for give the last stage to the second worker; otherwise it
  // depends on who is faster, and there is one way round that works.
  for (const bool is_asked : {true, false}) {
    SCOPED_TRACE(is_asked ? "as asked" : "as measured");
    LocalCluster::Options options;
    options.stages = 2;
    options.workers = 0;
    options.wait_until_ready = false;
    if (is_asked) options.coordinator_flags = {"--layer_cuts=2"};
    auto started = LocalCluster::Start(options);
    ASSERT_TRUE(started.ok()) << started.status();
    LocalCluster& cluster = **started;
    const std::string first = is_asked ? kModel : in_first;
    ASSERT_TRUE(cluster.StartWorker(0, {"--model=" + first}).ok());
    ASSERT_TRUE(cluster.StartWorker(1, {"--model=" + in_last}).ok());
    ASSERT_TRUE(cluster.WaitUntilReady().ok()) << cluster.Logs();
    EXPECT_EQ(Generate(cluster), expected);
    EXPECT_TRUE(!is_asked || absl::StrContains(cluster.coordinator().Log(),
                                               "event=pipeline_lost"));
  }
}

// Nobody else can take it: the operator hears what is wrong.
TEST(Weights, StatusSaysWhatAWorkerCouldNotLoad) {
  LocalCluster::Options options;
  options.workers = 0;
  options.wait_until_ready = false;
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  ASSERT_TRUE(cluster.StartWorker(0, {"--model=" + DamagedModel()}).ok());
  ASSERT_TRUE(AwaitLog(cluster.coordinator(), "event=pipeline_lost"))
      << cluster.Logs();
  const absl::Time deadline = absl::Now() + kPatience;
  std::string said;
  while (!absl::StrContains(said, "it could not load layers 0-") &&
         absl::Now() < deadline) {
    v1::ListWorkersResponse workers;
    grpc::ClientContext context;
    ASSERT_TRUE(cluster.cluster().ListWorkers(&context, {}, &workers).ok());
    if (workers.workers_size() > 0) said = workers.workers(0).why_idle();
  }
  EXPECT_TRUE(absl::StrContains(said, "differs from the coordinator's"))
      << said;
}

// The first stage does not need the damaged tensor, and so has no reason to
// look at it before it sends it.
TEST(Weights, WhatAPeerSendsDamagedIsFetchedFromTheCoordinator) {
  const std::string expected = Expected();
  LocalCluster::Options options;
  options.stages = 2;
  options.workers = 0;
  options.wait_until_ready = false;
  // In the order of their ids, whoever is faster.
  options.coordinator_flags = {"--layer_cuts=2"};
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  ASSERT_TRUE(cluster.StartWorker(0, {"--model=" + DamagedModel()}).ok());
  ASSERT_TRUE(AwaitLog(cluster.worker(0), "event=registered"));
  ASSERT_TRUE(cluster.StartWorker(1).ok());
  ASSERT_TRUE(cluster.WaitUntilReady().ok()) << cluster.Logs();
  cluster.worker(1).Signal(SIGKILL);
  ASSERT_TRUE(cluster.worker(1).Wait(kPatience).ok());
  ASSERT_TRUE(cluster.WaitUntilReady(false).ok());
  ASSERT_TRUE(cluster.StartWorker(2, WithoutFile(NewFolder())).ok());
  ASSERT_TRUE(cluster.WaitUntilReady().ok()) << cluster.Logs();
  EXPECT_EQ(Generate(cluster), expected);
  const std::string log = cluster.worker(2).Log();
  EXPECT_TRUE(absl::StrContains(log, "event=weights_damaged source=\"worker "))
      << log;
  EXPECT_TRUE(absl::StrContains(log, "coordinator 127.0.0.1")) << log;
}

TEST(Weights, AShardThatDoesNotFitTheCacheIsSaidToBeTooLarge) {
  LocalCluster::Options options;
  options.workers = 0;
  options.wait_until_ready = false;
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  ASSERT_TRUE(cluster
                  .StartWorker(0, {"--model=", "--cache_dir=" + NewFolder(),
                                   "--cache_max_bytes=1000000"})
                  .ok());
  ASSERT_TRUE(AwaitLog(cluster.worker(0), "raise --cache_max_bytes"))
      << cluster.Logs();
}

}  // namespace
}  // namespace tern
