// A worker of a pipeline is replaced: the others keep their KV blocks, only the
// lost stage is computed again, and nobody can tell by the tokens.

#include <signal.h>

#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/cluster.pb.h"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/local_cluster.h"

namespace tern {
namespace {

using ::testing::HasSubstr;

void SetDeadline(grpc::ClientContext* context) {
  context->set_deadline(absl::ToChronoTime(absl::Now() + absl::Minutes(1)));
}

// A prompt of many KV blocks, and penalties, which need the whole text.
v1::StreamGenerateRequest Request() {
  v1::StreamGenerateRequest request;
  std::string text;
  for (int i = 0; i < 20; ++i) {
    absl::StrAppend(&text, "ROMEO:\nWhat light is number ", i, "?\n");
  }
  request.mutable_request()->set_text(text);
  v1::SamplingParameters* sampling =
      request.mutable_request()->mutable_sampling();
  sampling->set_temperature(0.8f);
  sampling->set_seed(7);
  sampling->set_presence_penalty(0.5f);
  request.mutable_request()->mutable_stopping()->set_max_output_tokens(120);
  return request;
}

// Reads a stream to its end; kills the worker after the first ten messages,
// unless it is negative.
std::string ReadAll(LocalCluster& cluster, int victim) {
  grpc::ClientContext context;
  SetDeadline(&context);
  auto reader = cluster.inference().StreamGenerate(&context, Request());
  v1::StreamGenerateResponse response;
  std::string text;
  for (int i = 0; reader->Read(&response); ++i) {
    text += response.delta().text();
    if (i == 10 && victim >= 0) cluster.worker(victim).Signal(SIGKILL);
  }
  const grpc::Status status = reader->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message() << cluster.Logs();
  return text;
}

int HolderOf(LocalCluster& cluster, int stage) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::ListWorkersResponse workers;
  EXPECT_TRUE(cluster.cluster().ListWorkers(&context, {}, &workers).ok());
  for (int i = 0; i < workers.workers_size(); ++i) {
    if (workers.workers(i).state() == v1::WORKER_STATE_READY &&
        workers.workers(i).stage_index() == stage) {
      return i;
    }
  }
  ADD_FAILURE() << "nobody has stage " << stage;
  return 0;
}

v1::Pipeline PipelineOf(LocalCluster& cluster) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::GetModelResponse response;
  EXPECT_TRUE(cluster.inference().GetModel(&context, {}, &response).ok());
  EXPECT_EQ(response.model().pipelines_size(), 1);
  return response.model().pipelines_size() == 1
             ? response.model().pipelines(0)
             : v1::Pipeline::default_instance();
}

class KeptKvTest
    : public ::testing::TestWithParam<std::tuple<int, std::string>> {};

TEST_P(KeptKvTest, OnlyTheLostStageIsComputedAgain) {
  const auto& [lost_stage, keep_boundary] = GetParam();
  LocalCluster::Options options;
  options.workers = 4;
  options.stages = 3;
  options.coordinator_flags = {"--layer_cuts=1,2",
                               absl::StrCat("--keep_boundary=", keep_boundary)};
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  EXPECT_EQ(PipelineOf(cluster).keeps_boundary(), keep_boundary == "always");
  const std::string undisturbed = ReadAll(cluster, -1);
  EXPECT_EQ(PipelineOf(cluster).refilled_token_count(), 0);

  EXPECT_EQ(ReadAll(cluster, HolderOf(cluster, lost_stage)), undisturbed);
  // The text's blocks were full when the worker died.
  EXPECT_GT(PipelineOf(cluster).refilled_token_count(), 200);
  EXPECT_THAT(cluster.coordinator().Log(),
              HasSubstr(absl::StrCat("stages=2 of=3 boundary=",
                                     keep_boundary == "always")));
  // What it holds now serves others.
  EXPECT_EQ(ReadAll(cluster, -1), undisturbed);
}

INSTANTIATE_TEST_SUITE_P(StagesAndBoundaries, KeptKvTest,
                         ::testing::Combine(::testing::Values(0, 1, 2),
                                            ::testing::Values("always",
                                                              "never")),
                         [](const auto& info) {
                           return absl::StrCat("Stage", std::get<0>(info.param),
                                               "Boundary",
                                               std::get<1>(info.param));
                         });

}  // namespace
}  // namespace tern
