// The whole journey with real processes on loopback: text in, text out.

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "proto/tern/v1/cluster.pb.h"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/local_cluster.h"
#include "tests/integration/raw_call.h"
#include "util/credentials.h"

namespace tern {
namespace {

// What a stream gave in the end.
struct Answer {
  grpc::Status status;
  v1::PromptInfo prompt_info;
  std::string text;
  std::vector<int> tokens;
  v1::FinishReason finish_reason = v1::FINISH_REASON_UNSPECIFIED;
  v1::Usage usage;
  int messages = 0;
};

v1::GenerateRequest Request(const std::string& text, int max_tokens) {
  v1::GenerateRequest request;
  request.set_text(text);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_output_tokens(max_tokens);
  request.mutable_response_options()->set_return_token_ids(true);
  return request;
}

void SetDeadline(grpc::ClientContext* context,
                 absl::Duration timeout = absl::Seconds(60)) {
  context->set_deadline(absl::ToChronoTime(absl::Now() + timeout));
}

Answer Stream(v1::InferenceService::Stub& stub,
              const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::StreamGenerateRequest stream_request;
  *stream_request.mutable_request() = request;
  auto reader = stub.StreamGenerate(&context, stream_request);
  Answer answer;
  v1::StreamGenerateResponse response;
  while (reader->Read(&response)) {
    ++answer.messages;
    if (response.has_prompt_info()) answer.prompt_info = response.prompt_info();
    answer.text += response.delta().text();
    for (int id : response.delta().token_ids()) answer.tokens.push_back(id);
    if (response.delta().finish_reason()) {
      answer.finish_reason = response.delta().finish_reason();
    }
    if (response.has_usage()) answer.usage = response.usage();
  }
  answer.status = reader->Finish();
  return answer;
}

std::unique_ptr<LocalCluster> StartOrDie(LocalCluster::Options options) {
  auto cluster = LocalCluster::Start(std::move(options));
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  return cluster.ok() ? std::move(*cluster) : nullptr;
}

// Requests that differ in everything that could leak between neighbours.
std::vector<v1::GenerateRequest> MixedRequests() {
  std::vector<v1::GenerateRequest> requests;
  const std::vector<std::string> prompts = {
      "ROMEO:\n",
      "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\n",
      "To be, or not to be, that is the",
      "In 1597, na\u00efve \u00c9mile said: \u201cLove!\u201d\n",
      "KING RICHARD III:\nNow is the winter of our discontent\nMade glorious "
      "summer by this sun of York;\nAnd all the clouds that lour'd upon our "
      "house\nIn the deep bosom of the ocean buried.\n",
      "A",
      "JULIET:\n",
  };
  for (size_t i = 0; i < prompts.size(); ++i) {
    v1::GenerateRequest request = Request(prompts[i], 24 + 5 * i);
    if (i % 2 == 1) {
      request.mutable_sampling()->set_temperature(0.9f);
      request.mutable_sampling()->set_top_k(i == 3 ? 20 : 0);
      request.mutable_sampling()->set_top_p(i == 5 ? 0.8f : 1.0f);
      request.mutable_sampling()->set_seed(100 + i);
    }
    requests.push_back(request);
  }
  return requests;
}

TEST(Serve, TwoStagesOverMutualTlsStreamTheGoldenText) {
  LocalCluster::Options options;
  options.stages = 2;
  options.tls = true;
  options.head_mode = "stored";
  auto cluster = StartOrDie(options);
  ASSERT_NE(cluster, nullptr);

  std::ifstream in("models/demo/golden.json");
  const nlohmann::json golden = nlohmann::json::parse(in);
  int checked = 0;
  for (const auto& golden_case : golden["cases"]) {
    const std::vector<int> want = golden_case["greedy_ids"];
    const std::vector<double> margin = golden_case["margin"];
    const Answer answer =
        Stream(cluster->inference(),
               Request(golden_case["prompt"].get<std::string>(), want.size()));
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message() << "\n"
                                    << cluster->Logs();
    EXPECT_EQ(answer.finish_reason, v1::FINISH_REASON_LENGTH);
    EXPECT_EQ(answer.usage.prompt_token_count(),
              static_cast<int>(golden_case["prompt_ids"].size()));
    EXPECT_EQ(answer.usage.output_token_count(), static_cast<int>(want.size()));
    ASSERT_EQ(answer.tokens.size(), want.size());
    // The golden run keeps float32 keys; a step whose margin is below what that
    // moves may turn off, and everything after it with it.
    size_t same = 0;
    while (same < want.size() && answer.tokens[same] == want[same]) ++same;
    if (same < want.size()) {
      EXPECT_LT(margin[same], 0.05) << "step " << same;
    } else {
      EXPECT_EQ(answer.text, golden_case["greedy_text"].get<std::string>());
    }
    EXPECT_GT(same, 20u);
    ++checked;
  }
  EXPECT_EQ(checked, 5);
}

TEST(Serve, TokensAreTheSameWhateverTheSplitAndTheCompany) {
  std::vector<std::vector<int>> expected;
  std::vector<std::string> expected_text;
  for (int stages = 1; stages <= 4; ++stages) {
    LocalCluster::Options options;
    options.stages = stages;
    // Differ in what must not matter as well.
    options.worker_flags = {absl::StrCat("--threads=", 1 + stages % 2),
                            stages == 3 ? "--isa=avx2" : "--isa=auto"};
    options.coordinator_flags = {
        absl::StrCat("--max_step_tokens=", stages == 2 ? 16 : 512)};
    auto cluster = StartOrDie(options);
    ASSERT_NE(cluster, nullptr);
    const std::vector<v1::GenerateRequest> requests = MixedRequests();

    if (stages == 1) {
      for (const v1::GenerateRequest& request : requests) {
        const Answer answer = Stream(cluster->inference(), request);
        ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
        ASSERT_FALSE(answer.tokens.empty());
        expected.push_back(answer.tokens);
        expected_text.push_back(answer.text);
      }
    }
    std::vector<Answer> answers(requests.size());
    std::vector<std::thread> threads;
    for (size_t i = 0; i < requests.size(); ++i) {
      threads.emplace_back(
          [&, i] { answers[i] = Stream(cluster->inference(), requests[i]); });
    }
    for (std::thread& thread : threads) thread.join();
    for (size_t i = 0; i < requests.size(); ++i) {
      ASSERT_TRUE(answers[i].status.ok())
          << answers[i].status.error_message() << "\n"
          << cluster->Logs();
      EXPECT_EQ(answers[i].tokens, expected[i])
          << stages << " stages, request " << i;
      EXPECT_EQ(answers[i].text, expected_text[i]);
    }
  }
}

TEST(Serve, UnaryBatchAndStreamAgree) {
  LocalCluster::Options options;
  options.stages = 2;
  auto cluster = StartOrDie(options);
  ASSERT_NE(cluster, nullptr);
  const std::vector<v1::GenerateRequest> requests = MixedRequests();
  std::vector<std::string> expected;
  for (const v1::GenerateRequest& request : requests) {
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::GenerateResponse response;
    const grpc::Status status =
        cluster->inference().Generate(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    ASSERT_EQ(response.candidates_size(), 1);
    expected.push_back(response.candidates(0).text());
    EXPECT_EQ(expected.back(), Stream(cluster->inference(), request).text);
  }

  // Many more prompts than any queue inside holds, written as fast as the
  // cluster takes them.
  constexpr int kPrompts = 150;
  grpc::ClientContext context;
  SetDeadline(&context);
  auto stream = cluster->inference().BatchGenerate(&context);
  std::thread writer([&] {
    for (int i = 0; i < kPrompts; ++i) {
      v1::BatchGenerateRequest request;
      request.set_index(i);
      *request.mutable_request() = requests[i % requests.size()];
      // Every tenth is refused, and costs the others nothing.
      if (i % 10 == 9) request.mutable_request()->set_text("");
      if (!stream->Write(request)) break;
    }
    stream->WritesDone();
  });
  std::map<int64_t, int> seen;
  v1::BatchGenerateResponse response;
  while (stream->Read(&response)) {
    const int64_t i = response.index();
    ++seen[i];
    if (i % 10 == 9) {
      EXPECT_EQ(response.error().code(), grpc::StatusCode::INVALID_ARGUMENT);
    } else {
      ASSERT_EQ(response.response().candidates_size(), 1) << i;
      EXPECT_EQ(response.response().candidates(0).text(),
                expected[i % requests.size()])
          << i;
    }
  }
  writer.join();
  const grpc::Status status = stream->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(seen.size(), size_t{kPrompts});
  for (const auto& [index, count] : seen) EXPECT_EQ(count, 1) << index;
}

// Number of KV blocks in use, as the coordinator counts them.
int BlocksInUse(LocalCluster& cluster) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::GetModelResponse response;
  const grpc::Status status =
      cluster.inference().GetModel(&context, {}, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.model().pipelines_size(), 1);
  return response.model().pipelines(0).kv_block_in_use_count();
}

TEST(Serve, CancelDeadlineAndAbortFreeTheCache) {
  LocalCluster::Options options;
  options.stages = 2;
  auto cluster = StartOrDie(options);
  ASSERT_NE(cluster, nullptr);
  EXPECT_EQ(BlocksInUse(*cluster), 0);
  v1::StreamGenerateRequest request;
  *request.mutable_request() = Request("ROMEO:\n", 480);
  v1::StreamGenerateResponse response;

  {  // The client goes away.
    grpc::ClientContext context;
    SetDeadline(&context);
    auto reader = cluster->inference().StreamGenerate(&context, request);
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(reader->Read(&response));
    EXPECT_GT(BlocksInUse(*cluster), 0);
    context.TryCancel();
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  {  // Its time is up.
    grpc::ClientContext context;
    SetDeadline(&context, absl::Milliseconds(30));
    auto reader = cluster->inference().StreamGenerate(&context, request);
    while (reader->Read(&response)) {
    }
    EXPECT_EQ(reader->Finish().error_code(),
              grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  {  // Somebody else ends it.
    grpc::ClientContext context;
    SetDeadline(&context);
    request.mutable_request()->set_request_id("to-be-aborted");
    auto reader = cluster->inference().StreamGenerate(&context, request);
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(reader->Read(&response));

    // While it is in progress its name is taken.
    const Answer repeated = Stream(cluster->inference(), request.request());
    EXPECT_EQ(repeated.status.error_code(), grpc::StatusCode::ALREADY_EXISTS);
    EXPECT_NE(repeated.status.error_message().find("to-be-aborted"),
              std::string::npos);

    grpc::ClientContext abort_context;
    SetDeadline(&abort_context);
    v1::AbortRequest abort;
    abort.set_request_id("to-be-aborted");
    v1::AbortResponse aborted;
    EXPECT_TRUE(
        cluster->inference().Abort(&abort_context, abort, &aborted).ok());
    while (reader->Read(&response)) {
    }
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);

    // And now it is free, and nothing of that name is in progress.
    grpc::ClientContext again;
    SetDeadline(&again);
    EXPECT_EQ(cluster->inference().Abort(&again, abort, &aborted).error_code(),
              grpc::StatusCode::NOT_FOUND);
  }
  // A request after them, and its end, are processed after theirs.
  EXPECT_TRUE(Stream(cluster->inference(), Request("A", 1)).status.ok());
  EXPECT_EQ(BlocksInUse(*cluster), 0);
}

struct BadRequest {
  std::string name;
  v1::GenerateRequest request;
  grpc::StatusCode code;
  std::string says;  // part of the message
};

std::vector<BadRequest> BadRequests() {
  using grpc::StatusCode;
  std::vector<BadRequest> bad;
  auto add = [&bad](const std::string& name, StatusCode code,
                    const std::string& says) -> v1::GenerateRequest* {
    bad.push_back({name, Request("ROMEO:\n", 4), code, says});
    return &bad.back().request;
  };
  add("no prompt", StatusCode::INVALID_ARGUMENT, "prompt")->clear_prompt();
  add("empty", StatusCode::INVALID_ARGUMENT, "prompt")->set_text("");
  std::string long_text;
  for (int i = 0; i < 3000; ++i) long_text += "thou ";
  add("too long", StatusCode::INVALID_ARGUMENT, "511")->set_text(long_text);
  add("id out of range", StatusCode::INVALID_ARGUMENT, "1024")
      ->mutable_token_ids()
      ->add_ids(1024);
  add("negative id", StatusCode::INVALID_ARGUMENT, "-1")
      ->mutable_token_ids()
      ->add_ids(-1);
  add("temperature NaN", StatusCode::INVALID_ARGUMENT, "temperature")
      ->mutable_sampling()
      ->set_temperature(NAN);
  add("temperature negative", StatusCode::INVALID_ARGUMENT, "temperature")
      ->mutable_sampling()
      ->set_temperature(-1);
  add("top_p 2", StatusCode::INVALID_ARGUMENT, "top_p")
      ->mutable_sampling()
      ->set_top_p(2);
  add("top_p 0", StatusCode::INVALID_ARGUMENT, "top_p")
      ->mutable_sampling()
      ->set_top_p(0);
  add("top_k negative", StatusCode::INVALID_ARGUMENT, "top_k")
      ->mutable_sampling()
      ->set_top_k(-1);
  add("min_p above one", StatusCode::INVALID_ARGUMENT, "min_p")
      ->mutable_sampling()
      ->set_min_p(1.5f);
  add("max tokens 0", StatusCode::INVALID_ARGUMENT, "max_output_tokens")
      ->mutable_stopping()
      ->set_max_output_tokens(0);
  add("stop id", StatusCode::INVALID_ARGUMENT, "stop_token_ids")
      ->mutable_stopping()
      ->add_stop_token_ids(5000);
  add("empty stop string", StatusCode::INVALID_ARGUMENT, "stop_strings")
      ->mutable_stopping()
      ->add_stop_strings("");
  add("model", StatusCode::NOT_FOUND, "shakespeare-demo-i2_s")
      ->set_model("gpt-9");
  add("request id", StatusCode::INVALID_ARGUMENT, "request_id")
      ->set_request_id("tab\there");
  add("samples", StatusCode::INVALID_ARGUMENT, "sample_count")
      ->mutable_sampling()
      ->set_sample_count(17);
  return bad;
}

TEST(Serve, BadRequestsAreRefusedPreciselyAndCostNothing) {
  LocalCluster::Options options;
  auto cluster = StartOrDie(options);
  ASSERT_NE(cluster, nullptr);
  for (const BadRequest& bad : BadRequests()) {
    const Answer answer = Stream(cluster->inference(), bad.request);
    EXPECT_EQ(answer.status.error_code(), bad.code)
        << bad.name << ": " << answer.status.error_message();
    EXPECT_NE(answer.status.error_message().find(bad.says), std::string::npos)
        << bad.name << ": " << answer.status.error_message();
  }
  EXPECT_TRUE(Stream(cluster->inference(), Request("A", 1)).status.ok());
  EXPECT_EQ(BlocksInUse(*cluster), 0);
}

TEST(Serve, StopStringsAndTokensEndTheAnswer) {
  LocalCluster::Options options;
  auto cluster = StartOrDie(options);
  ASSERT_NE(cluster, nullptr);
  const Answer whole = Stream(cluster->inference(), Request("ROMEO:\n", 40));
  ASSERT_TRUE(whole.status.ok()) << whole.status.error_message();

  // A string from the middle of the text, whatever tokens it lies in.
  const std::string stop = whole.text.substr(whole.text.size() / 2, 5);
  v1::GenerateRequest request = Request("ROMEO:\n", 40);
  request.mutable_stopping()->add_stop_strings("nowhere in the text");
  request.mutable_stopping()->add_stop_strings(stop);
  const Answer stopped = Stream(cluster->inference(), request);
  EXPECT_EQ(stopped.finish_reason, v1::FINISH_REASON_STOP);
  EXPECT_EQ(stopped.text, whole.text.substr(0, whole.text.find(stop)));

  request = Request("ROMEO:\n", 40);
  request.mutable_stopping()->add_stop_token_ids(whole.tokens[6]);
  const Answer by_token = Stream(cluster->inference(), request);
  EXPECT_EQ(by_token.finish_reason, v1::FINISH_REASON_STOP);
  const auto first =
      std::find(whole.tokens.begin(), whole.tokens.end(), whole.tokens[6]);
  EXPECT_EQ(by_token.tokens, std::vector<int>(whole.tokens.begin(), first));
}

TEST(Serve, SeedDecidesAndIsReported) {
  LocalCluster::Options options;
  auto cluster = StartOrDie(options);
  ASSERT_NE(cluster, nullptr);
  v1::GenerateRequest request = Request("ROMEO:\n", 30);
  request.mutable_sampling()->set_temperature(1.0f);
  const Answer unseeded = Stream(cluster->inference(), request);
  ASSERT_TRUE(unseeded.status.ok());
  EXPECT_EQ(unseeded.prompt_info.numerics_id(), "cpu-1/int8");
  request.mutable_sampling()->set_seed(unseeded.prompt_info.seed());
  EXPECT_EQ(Stream(cluster->inference(), request).tokens, unseeded.tokens);
  request.mutable_sampling()->set_seed(unseeded.prompt_info.seed() + 1);
  EXPECT_NE(Stream(cluster->inference(), request).tokens, unseeded.tokens);
}

TEST(Serve, ReflectionListsTheServices) {
  LocalCluster::Options options;
  auto cluster = StartOrDie(options);
  ASSERT_NE(cluster, nullptr);
  const std::string services = ReflectedServices(cluster->channel());
  for (const char* name : {"grpc.health.v1.Health", "tern.v1.ClusterService",
                           "tern.v1.InferenceService"}) {
    EXPECT_NE(services.find(name), std::string::npos) << services;
  }
}

TEST(Serve, StatusNamesWorkersStagesLayersAndMemory) {
  LocalCluster::Options options;
  options.stages = 2;
  auto cluster = StartOrDie(options);
  ASSERT_NE(cluster, nullptr);
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::GetModelResponse response;
  ASSERT_TRUE(cluster->inference().GetModel(&context, {}, &response).ok());
  const v1::Model& model = response.model();
  EXPECT_EQ(model.architecture(), "bitnet-b1.58");
  EXPECT_EQ(model.context_length(), 512);
  ASSERT_EQ(model.pipelines_size(), 1);
  const v1::Pipeline& pipeline = model.pipelines(0);
  EXPECT_EQ(pipeline.state(), v1::PIPELINE_STATE_READY);
  ASSERT_EQ(pipeline.stages_size(), 2);
  EXPECT_EQ(pipeline.stages(0).layer_begin(), 0);
  EXPECT_EQ(pipeline.stages(0).layer_end(), 2);
  EXPECT_TRUE(pipeline.stages(0).has_embedding());
  EXPECT_EQ(pipeline.stages(1).layer_begin(), 2);
  EXPECT_EQ(pipeline.stages(1).layer_end(), 4);
  EXPECT_TRUE(pipeline.stages(1).has_head());
  EXPECT_GT(pipeline.stages(0).weight_bytes(), 1 << 20);
  EXPECT_GT(pipeline.stages(0).kv_bytes(), 0);
  EXPECT_GT(pipeline.kv_block_count(), 0);

  grpc::ClientContext workers_context;
  SetDeadline(&workers_context);
  v1::ListWorkersResponse workers;
  ASSERT_TRUE(
      cluster->cluster().ListWorkers(&workers_context, {}, &workers).ok());
  ASSERT_EQ(workers.workers_size(), 2);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(workers.workers(i).worker_id(), absl::StrCat("worker-", i));
    EXPECT_EQ(workers.workers(i).state(), v1::WORKER_STATE_READY);
    EXPECT_EQ(workers.workers(i).capabilities().numerics_class(), "cpu-1");
    EXPECT_NE(workers.workers(i).capabilities().thread_placement(), "");
  }
}

}  // namespace
}  // namespace tern
