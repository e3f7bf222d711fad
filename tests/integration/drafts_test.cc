// Guesses at the next tokens change how many steps an answer takes and never
// what it says.

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/local_cluster.h"

namespace tern {
namespace {

// Text to be quoted.
constexpr char kScene[] =
    "ROMEO:\nO, speak again, bright angel!\n\nJULIET:\nO Romeo, Romeo!\n\n"
    "ROMEO:\nO, speak again, bright angel!\n\nJULIET:\nO Romeo, Romeo!\n\n"
    "ROMEO:\nO, speak again, bright angel!\n\nJULIET:\n";

void SetDeadline(grpc::ClientContext* context) {
  context->set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(120)));
}

v1::GenerateRequest Request(float temperature, int max_tokens) {
  v1::GenerateRequest request;
  request.set_text(kScene);
  request.mutable_sampling()->set_temperature(temperature);
  request.mutable_sampling()->set_seed(11);
  request.mutable_stopping()->set_max_output_tokens(max_tokens);
  request.mutable_response_options()->set_return_token_ids(true);
  return request;
}

// Everything that a guess could get wrong.
std::vector<v1::GenerateRequest> Requests() {
  std::vector<v1::GenerateRequest> requests;
  requests.push_back(Request(0, 100));
  requests.push_back(Request(0.7f, 60));
  v1::GenerateRequest penalised = Request(0.5f, 60);
  penalised.mutable_sampling()->set_repetition_penalty(1.05f);
  penalised.mutable_sampling()->set_frequency_penalty(0.1f);
  requests.push_back(penalised);
  v1::GenerateRequest likely = Request(0, 40);
  likely.mutable_response_options()->set_logprobs(2);
  requests.push_back(likely);
  v1::GenerateRequest several = Request(0.6f, 40);
  several.mutable_sampling()->set_sample_count(3);
  requests.push_back(several);
  // Ends in the midst of what is guessed.
  v1::GenerateRequest stopped = Request(0, 100);
  stopped.mutable_stopping()->add_stop_strings("Rome");
  requests.push_back(stopped);
  v1::GenerateRequest short_one = Request(0, 7);
  requests.push_back(short_one);
  return requests;
}

// What is said of each candidate, log-probabilities bit for bit.
std::vector<std::string> Answers(const v1::GenerateResponse& response) {
  std::vector<std::string> answers;
  for (const v1::Candidate& candidate : response.candidates()) {
    answers.push_back(candidate.SerializeAsString());
  }
  return answers;
}

v1::GenerateResponse Generate(LocalCluster& cluster,
                              const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::GenerateResponse response;
  const grpc::Status status =
      cluster.inference().Generate(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message() << cluster.Logs();
  return response;
}

v1::Pipeline ThePipeline(LocalCluster& cluster) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::GetModelResponse response;
  EXPECT_TRUE(cluster.inference().GetModel(&context, {}, &response).ok());
  return response.model().pipelines(0);
}

std::unique_ptr<LocalCluster> StartOrDie(int stages,
                                         std::vector<std::string> flags) {
  LocalCluster::Options options;
  options.stages = stages;
  options.coordinator_flags = std::move(flags);
  auto cluster = LocalCluster::Start(std::move(options));
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  return cluster.ok() ? std::move(*cluster) : nullptr;
}

TEST(Drafts, ChangeNoAnswerOnOneStageOrTwo) {
  const std::vector<v1::GenerateRequest> requests = Requests();
  std::vector<std::vector<std::string>> expected;
  {
    auto reference = StartOrDie(1, {"--max_draft_tokens=0"});
    ASSERT_NE(reference, nullptr);
    for (const v1::GenerateRequest& request : requests) {
      expected.push_back(Answers(Generate(*reference, request)));
    }
    EXPECT_EQ(ThePipeline(*reference).draft_token_count(), 0);
  }
  for (const int stages : {1, 2}) {
    auto cluster =
        StartOrDie(stages, {"--max_draft_tokens=5", "--always_drafts"});
    ASSERT_NE(cluster, nullptr);
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(Answers(Generate(*cluster, requests[i])), expected[i])
          << "request " << i << " on " << stages << " stages";
    }
    // And side by side.
    std::vector<std::vector<std::string>> together(requests.size());
    std::vector<std::thread> threads;
    for (size_t i = 0; i < requests.size(); ++i) {
      threads.emplace_back(
          [&, i] { together[i] = Answers(Generate(*cluster, requests[i])); });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(together, expected) << stages << " stages";

    const v1::Pipeline pipeline = ThePipeline(*cluster);
    // How many there are depends on what was planned before results came.
    EXPECT_GT(pipeline.accepted_draft_token_count(), 10);
    EXPECT_GT(pipeline.draft_token_count(),
              pipeline.accepted_draft_token_count());
    EXPECT_EQ(pipeline.kv_block_in_use_count(), 0);
  }
}

}  // namespace
}  // namespace tern
