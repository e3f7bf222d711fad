// A worker that becomes slow gives layers away while answers are written. Mock
// workers, which take the time they are told to.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/cluster.grpc.pb.h"
#include "proto/tern/v1/cluster.pb.h"
#include "proto/tern/v1/inference.grpc.pb.h"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/local_cluster.h"
#include "tests/integration/process.h"

namespace tern {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);
constexpr char kModel[] = "models/demo/shakespeare-demo-i2_s.gguf";

class PlacementTest : public ::testing::Test {
 protected:
  void Start(LocalCluster::Options options) {
    options.workers = 0;
    options.wait_until_ready = false;
    auto cluster = LocalCluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
  }

  // A mock worker of 10 ms a step and 2 ms a token for the whole model.
  void StartMock(const std::string& id, std::vector<std::string> flags) {
    std::vector<std::string> argv = {"bench/mock_worker",
                                     "--coordinator=" + cluster_->server(),
                                     absl::StrCat("--model=", kModel),
                                     "--worker_id=" + id,
                                     "--by_layers",
                                     "--step_us=10000",
                                     "--token_us=2000",
                                     "--context_ns=0"};
    argv.insert(argv.end(), flags.begin(), flags.end());
    auto process =
        Process::Start(argv, ::testing::TempDir() + "/" + id + ".log");
    ASSERT_TRUE(process.ok()) << process.status();
    mocks_.push_back(*std::move(process));
  }

  v1::ListWorkersResponse Workers() {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
    v1::ListWorkersResponse workers;
    const grpc::Status status =
        cluster_->cluster().ListWorkers(&context, {}, &workers);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return workers;
  }

  // Layers of each worker, such as "fast-0:0-3 slow-0:3-4".
  static std::string Placed(const v1::ListWorkersResponse& workers) {
    std::string text;
    for (const v1::PipelineForecast& pipeline : workers.pipelines()) {
      for (const v1::StageForecast& stage : pipeline.stages()) {
        absl::StrAppend(&text, text.empty() ? "" : " ", stage.worker_id(), ":",
                        stage.layer_begin(), "-", stage.layer_end());
      }
    }
    return text;
  }

  void AwaitPlaced(const std::string& expected) {
    const absl::Time deadline = absl::Now() + kPatience;
    std::string placed;
    do {
      placed = Placed(Workers());
    } while (placed != expected && absl::Now() < deadline);
    EXPECT_EQ(placed, expected) << cluster_->Logs();
  }

  static v1::GenerateRequest Request(int n_output) {
    v1::GenerateRequest request;
    for (int i = 0; i < 20; ++i) request.mutable_token_ids()->add_ids(50 + i);
    request.mutable_sampling()->set_seed(7);
    request.mutable_stopping()->set_max_output_tokens(n_output);
    request.mutable_stopping()->set_ignore_end_of_sequence(true);
    request.mutable_response_options()->set_return_token_ids(true);
    return request;
  }

  std::unique_ptr<LocalCluster> cluster_;
  std::vector<std::unique_ptr<Process>> mocks_;
};

TEST_F(PlacementTest, AWorkerThatIsSlowGivesLayersAwayWithinAnAnswer) {
  LocalCluster::Options options;
  options.stages = 2;
  options.coordinator_flags = {"--recut_interval=2s"};
  Start(options);
  StartMock("fast", {});
  StartMock("slow", {"--slowdown=5"});
  // They say that they are equally fast, and mean it.
  AwaitPlaced("fast-0:0-2 slow-0:2-4");
  ASSERT_TRUE(cluster_->WaitUntilReady().ok()) << cluster_->Logs();
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  v1::StreamGenerateRequest request;
  *request.mutable_request() = Request(150);
  const auto reader = cluster_->inference().StreamGenerate(&context, request);
  // By the slowdown that its heartbeats tell.
  AwaitPlaced("fast-0:0-3 slow-0:3-4");
  v1::StreamGenerateResponse response;
  std::vector<int> tokens;
  while (reader->Read(&response)) {
    tokens.insert(tokens.end(), response.delta().token_ids().begin(),
                  response.delta().token_ids().end());
  }
  const grpc::Status status = reader->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message() << cluster_->Logs();
  // The same answer without a change midway.
  grpc::ClientContext again;
  again.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  v1::GenerateResponse whole;
  ASSERT_TRUE(
      cluster_->inference().Generate(&again, Request(150), &whole).ok());
  EXPECT_EQ(tokens, std::vector<int>(whole.candidates(0).token_ids().begin(),
                                     whole.candidates(0).token_ids().end()));
  const v1::ListWorkersResponse workers = Workers();
  EXPECT_FALSE(workers.workers(0).is_slow());
  EXPECT_TRUE(workers.workers(1).is_slow());
  EXPECT_EQ(workers.workers(1).slowdown(), 5);
  EXPECT_NE(cluster_->coordinator().Log().find(
                "event=worker_slow worker=slow-0 slowdown=5"),
            std::string::npos);
}

// Neither holds the model: they wait for each other, and the third for a gap.
TEST_F(PlacementTest, WorkersWithLittleMemoryShareTheModelByThemselves) {
  LocalCluster::Options options;
  options.stages = 0;
  options.coordinator_flags = {"--kv_cache_tokens=4096", "--recut_interval=0"};
  Start(options);
  const std::vector<std::string> little = {"--memory_bytes=7000000"};
  StartMock("a", little);
  StartMock("b", little);
  ASSERT_TRUE(cluster_->WaitUntilReady().ok()) << cluster_->Logs();
  const v1::ListWorkersResponse two = Workers();
  ASSERT_EQ(two.pipelines_size(), 1);
  EXPECT_EQ(two.pipelines(0).stages_size(), 2) << two.DebugString();
  StartMock("c", little);
  const absl::Time deadline = absl::Now() + kPatience;
  v1::ListWorkersResponse workers;
  do {
    workers = Workers();
  } while (workers.workers_size() < 3 && absl::Now() < deadline);
  ASSERT_EQ(workers.workers_size(), 3);
  EXPECT_NE(workers.workers(2).why_idle().find("worker c-0 offers"),
            std::string::npos)
      << workers.DebugString();
}

}  // namespace
}  // namespace tern
