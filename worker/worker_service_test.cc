// Workers in one process, over real connections; the tests are the coordinator.

#include "worker/worker_service.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/status.h"
#include "grpcpp/support/sync_stream.h"
#include "gtest/gtest.h"
#include "model/gguf_reader.h"
#include "proto/tern/v1/tensor.pb.h"
#include "proto/tern/v1/worker.grpc.pb.h"
#include "proto/tern/v1/worker.pb.h"
#include "tests/testing/tiny_model.h"
#include "util/crc32c.h"
#include "util/logging.h"
#include "util/message_checksum.h"
#include "worker/worker.h"

namespace tern {
namespace {

constexpr int kLayers = 3;
constexpr int kHidden = 64;
constexpr int kBlockTokens = 16;

// Long enough for any machine; no test waits for it.
std::chrono::system_clock::time_point Deadline() {
  return std::chrono::system_clock::now() + std::chrono::seconds(60);
}

// One worker and a connection to it.
struct Node {
  std::unique_ptr<Worker> worker;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::WorkerService::Stub> stub;
};

using PlanStream = grpc::ClientReaderWriter<v1::StepPlan, v1::StepResult>;

// An ExecuteSteps call.
struct Steps {
  std::unique_ptr<grpc::ClientContext> context;
  std::unique_ptr<PlanStream> stream;

  v1::StepResult Run(const v1::StepPlan& plan) {
    EXPECT_TRUE(stream->Write(plan));
    return Next();
  }
  v1::StepResult Next() {
    v1::StepResult result;
    EXPECT_TRUE(stream->Read(&result));
    return result;
  }
  // How the call ends after what has been written.
  grpc::Status End() {
    stream->WritesDone();
    v1::StepResult result;
    while (stream->Read(&result)) {
    }
    return stream->Finish();
  }
};

class WorkerServiceTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    testing::TinyModelOptions options;
    options.n_layers = kLayers;
    options.hidden_size = kHidden;
    model_path_ = new std::string(testing::WriteTinyModel(options));
    auto file = GgufReader::Open(*model_path_);
    CHECK(file.ok()) << file.status().ToString();
    fingerprint_ = (*file)->fingerprint();
  }

  static Node StartNode(int64_t memory_bytes = int64_t{1} << 30) {
    Worker::Options options;
    options.models = {{*model_path_, "tiny"}};
    options.n_threads = 2;
    options.memory_bytes = memory_bytes;
    auto worker = Worker::Create(options);
    CHECK(worker.ok()) << worker.status().ToString();
    Node node;
    node.worker = std::move(worker).value();
    auto credentials = Credentials::Create({});
    CHECK(credentials.ok());
    auto channel = (*credentials)->CreateChannel(node.worker->address());
    CHECK(channel.ok()) << channel.status().ToString();
    node.channel = std::move(channel).value();
    node.stub = v1::WorkerService::NewStub(node.channel);
    return node;
  }

  static v1::LoadStageRequest LoadRequest(int64_t epoch, int stage_index = 0,
                                          int stage_count = 1,
                                          const std::string& next = "") {
    v1::LoadStageRequest request;
    request.set_model("tiny");
    request.set_pipeline_id("p");
    request.set_epoch(epoch);
    request.set_model_fingerprint(fingerprint_);
    request.set_layer_begin(kLayers * stage_index / stage_count);
    request.set_layer_end(kLayers * (stage_index + 1) / stage_count);
    request.set_stage_index(stage_index);
    request.set_stage_count(stage_count);
    request.set_numerics_id("cpu-1/int8");
    request.set_kv_block_count(8);
    request.set_max_step_tokens(32);
    request.set_next_stage_address(next);
    return request;
  }

  static grpc::Status Load(const Node& node,
                           const v1::LoadStageRequest& request,
                           v1::LoadStageResponse* last = nullptr) {
    grpc::ClientContext context;
    context.set_deadline(Deadline());
    const auto stream = node.stub->LoadStage(&context, request);
    v1::LoadStageResponse response;
    while (stream->Read(&response)) {
      if (last != nullptr) *last = response;
    }
    return stream->Finish();
  }

  static Steps Open(const Node& node) {
    Steps steps;
    steps.context = std::make_unique<grpc::ClientContext>();
    steps.context->set_deadline(Deadline());
    steps.stream = node.stub->ExecuteSteps(steps.context.get());
    return steps;
  }

  static v1::StepPlan Plan(int64_t epoch, int64_t step_id) {
    v1::StepPlan plan;
    plan.set_model("tiny");
    plan.set_pipeline_id("p");
    plan.set_epoch(epoch);
    plan.set_step_id(step_id);
    plan.set_numerics_id("cpu-1/int8");
    return plan;
  }
  static void AddSequence(int64_t id, v1::StepPlan* plan) {
    v1::SequenceSetup* const setup = plan->add_new_sequences();
    setup->set_sequence_id(id);
    setup->mutable_sampler()->set_temperature(1);
    setup->mutable_sampler()->set_top_p(1);
    setup->mutable_sampler()->set_seed(9);
  }
  static v1::StepRow* AddRow(int64_t id, int position,
                             const std::vector<int32_t>& tokens,
                             const std::vector<int32_t>& blocks,
                             v1::StepPlan* plan) {
    v1::StepRow* const row = plan->add_rows();
    row->set_sequence_id(id);
    row->set_position(position);
    for (const int32_t token : tokens) row->mutable_tokens()->add_ids(token);
    for (const int32_t block : blocks) row->add_new_block_ids(block);
    row->set_samples(true);
    return row;
  }

  // Decodes one sequence through workers whose stages are loaded for `epoch`:
  // a prompt, then one token after the other; `ahead`: each row is sent before
  // its token is known.
  static std::vector<int32_t> Decode(absl::Span<Node> nodes, int64_t epoch,
                                     int n_tokens, bool ahead = false) {
    std::vector<Steps> steps;
    for (const Node& node : nodes) steps.push_back(Open(node));
    std::vector<int32_t> answer;
    std::vector<int32_t> tokens = {256, 72, 101, 108, 108, 111};
    int position = 0;
    const auto send = [&](int64_t step_id) {
      v1::StepPlan plan = Plan(epoch, step_id);
      if (step_id == 1) AddSequence(1, &plan);
      std::vector<int32_t> blocks;
      const int end = position + static_cast<int>(tokens.size());
      for (int b = (position + kBlockTokens - 1) / kBlockTokens;
           b * kBlockTokens < end; ++b) {
        blocks.push_back(7 - b);
      }
      v1::StepRow* const row = AddRow(1, position, tokens, blocks, &plan);
      if (ahead && step_id > 1) row->set_sampled_in_step_id(step_id - 1);
      for (Steps& s : steps) EXPECT_TRUE(s.stream->Write(plan));
      position = end;
      tokens = {0};
    };
    send(1);
    for (int i = 1; i <= n_tokens; ++i) {
      const int end = position;
      if (ahead && i < n_tokens) send(i + 1);
      v1::StepResult result;
      for (Steps& s : steps) {
        result = s.Next();
        EXPECT_EQ(result.step_id(), i);
        EXPECT_EQ(result.epoch(), epoch);
        EXPECT_EQ(result.kv_block_in_use_count(),
                  (end + kBlockTokens - 1) / kBlockTokens);
        EXPECT_GT(result.compute_ns(), 0);
        EXPECT_EQ(result.sampled_size(), &s == &steps.back() ? 1 : 0);
      }
      if (result.sampled_size() != 1) break;
      EXPECT_EQ(result.sampled(0).sequence_id(), 1);
      EXPECT_EQ(result.sampled(0).position(), end);
      EXPECT_EQ(result.sampled(0).error_code(), 0);
      answer.push_back(result.sampled(0).token_id());
      tokens = {answer.back()};
      if (!ahead && i < n_tokens) send(i + 1);
    }
    for (Steps& s : steps) {
      const grpc::Status status = s.End();
      EXPECT_TRUE(status.ok()) << status.error_message();
    }
    return answer;
  }

  // Loads as many stages as there are nodes, the last one first.
  static void LoadPipeline(absl::Span<Node> nodes, int64_t epoch) {
    const int n = static_cast<int>(nodes.size());
    std::string next;
    for (int i = n - 1; i >= 0; --i) {
      v1::LoadStageRequest request = LoadRequest(epoch, i, n, next);
      if (i == n - 1 && n > 1) {
        request.set_first_stage_address(nodes[0].worker->address());
      }
      const grpc::Status status = Load(nodes[i], request);
      ASSERT_TRUE(status.ok()) << status.error_message();
      next = nodes[i].worker->address();
    }
  }

  static v1::TransferHiddenStatesRequest Slice(int64_t epoch, int64_t step_id,
                                               const std::string& data) {
    v1::TransferHiddenStatesRequest request;
    request.set_model("tiny");
    request.set_pipeline_id("p");
    request.set_epoch(epoch);
    request.set_step_id(step_id);
    v1::TensorSlice* const slice = request.mutable_slice();
    slice->set_data_type(v1::DATA_TYPE_FLOAT32);
    slice->add_shape(1);
    slice->add_shape(kHidden);
    slice->set_total_bytes(kHidden * sizeof(float));
    slice->set_data(data);
    slice->set_crc32c(Crc32c(data.data(), data.size()));
    return request;
  }
  // Sends slices on a stream of their own; how it ends.
  static grpc::Status Transfer(
      const Node& node,
      const std::vector<v1::TransferHiddenStatesRequest>& slices,
      int64_t* tensor_count = nullptr) {
    grpc::ClientContext context;
    context.set_deadline(Deadline());
    v1::TransferHiddenStatesResponse response;
    const auto stream = node.stub->TransferHiddenStates(&context, &response);
    for (const auto& slice : slices) {
      if (!stream->Write(slice)) break;
    }
    stream->WritesDone();
    const grpc::Status status = stream->Finish();
    if (tensor_count != nullptr) *tensor_count = response.tensor_count();
    return status;
  }

  static v1::TransferSampledTokensRequest Tokens(int64_t epoch, int64_t step_id,
                                                 int32_t token_id) {
    v1::TransferSampledTokensRequest request;
    request.set_model("tiny");
    request.set_pipeline_id("p");
    request.set_epoch(epoch);
    request.set_step_id(step_id);
    v1::SequenceToken* const token = request.add_tokens();
    token->set_sequence_id(1);
    token->set_token_id(token_id);
    return request;
  }
  // Sends the tokens of steps on a stream of their own; how it ends.
  static grpc::Status TransferTokens(
      const Node& node,
      const std::vector<v1::TransferSampledTokensRequest>& steps,
      int64_t* step_count = nullptr) {
    grpc::ClientContext context;
    context.set_deadline(Deadline());
    v1::TransferSampledTokensResponse response;
    const auto stream = node.stub->TransferSampledTokens(&context, &response);
    for (const auto& step : steps) {
      if (!stream->Write(step)) break;
    }
    stream->WritesDone();
    const grpc::Status status = stream->Finish();
    if (step_count != nullptr) *step_count = response.step_count();
    return status;
  }

  static std::string* model_path_;
  static uint64_t fingerprint_;
};

std::string* WorkerServiceTest::model_path_ = nullptr;
uint64_t WorkerServiceTest::fingerprint_ = 0;

TEST_F(WorkerServiceTest, APipelineOfAnyDepthSaysTheSame) {
  std::vector<Node> nodes;
  for (int i = 0; i < 3; ++i) nodes.push_back(StartNode());
  std::vector<int32_t> expected;
  int64_t epoch = 0;
  for (const int depth : {1, 2, 3}) {
    const auto used = absl::MakeSpan(nodes).first(depth);
    for (const bool ahead : {false, true}) {
      ++epoch;
      LoadPipeline(used, epoch);
      const std::vector<int32_t> answer = Decode(used, epoch, 40, ahead);
      EXPECT_EQ(answer.size(), 40u);
      if (expected.empty()) expected = answer;
      EXPECT_EQ(answer, expected)
          << depth << " stages, rows sent ahead: " << ahead;
    }
  }
}

TEST_F(WorkerServiceTest, LoadingTheSameStageAgainStartsAfresh) {
  std::vector<Node> nodes(1);
  nodes[0] = StartNode();
  LoadPipeline(absl::MakeSpan(nodes), 1);
  const std::vector<int32_t> first = Decode(absl::MakeSpan(nodes), 1, 5);
  LoadPipeline(absl::MakeSpan(nodes), 5);
  EXPECT_EQ(Decode(absl::MakeSpan(nodes), 5, 5), first);
}

TEST_F(WorkerServiceTest, LoadingTellsSizes) {
  const Node node = StartNode();
  v1::LoadStageResponse last;
  const grpc::Status status = Load(node, LoadRequest(1), &last);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(last.loaded_bytes(), last.total_bytes());
  EXPECT_GT(last.loaded().weight_bytes(), 0);
  EXPECT_EQ(last.loaded().weight_bytes(), last.total_bytes());
  // 8 blocks of 16 tokens, 2 kv heads of 16 float16, keys and values.
  EXPECT_EQ(last.loaded().kv_bytes(), kLayers * 8 * 16 * 2 * 16 * 2 * 2);
  EXPECT_EQ(last.loaded().kv_block_size(), kBlockTokens);
}

TEST_F(WorkerServiceTest, LoadsThatCannotBeAreRefused) {
  struct Case {
    grpc::StatusCode code;
    std::function<void(v1::LoadStageRequest*)> change;
  };
  using Request = v1::LoadStageRequest;
  const std::vector<Case> cases = {
      {grpc::NOT_FOUND, [](Request* r) { r->set_model("huge"); }},
      {grpc::FAILED_PRECONDITION,
       [](Request* r) { r->set_model_fingerprint(1); }},
      {grpc::FAILED_PRECONDITION,
       [](Request* r) { r->set_numerics_id("sm90-1/int8"); }},
      {grpc::FAILED_PRECONDITION,
       [](Request* r) { r->set_numerics_id("cpu-1/int4"); }},
      {grpc::FAILED_PRECONDITION, [](Request* r) { r->clear_numerics_id(); }},
      {grpc::INVALID_ARGUMENT, [](Request* r) { r->set_epoch(0); }},
      {grpc::INVALID_ARGUMENT, [](Request* r) { r->clear_pipeline_id(); }},
      {grpc::INVALID_ARGUMENT, [](Request* r) { r->set_layer_begin(-1); }},
      {grpc::INVALID_ARGUMENT, [](Request* r) { r->set_layer_begin(1); }},
      {grpc::INVALID_ARGUMENT, [](Request* r) { r->set_layer_end(0); }},
      {grpc::INVALID_ARGUMENT, [](Request* r) { r->set_layer_end(1 << 30); }},
      {grpc::INVALID_ARGUMENT, [](Request* r) { r->set_stage_count(0); }},
      {grpc::INVALID_ARGUMENT, [](Request* r) { r->set_stage_index(1); }},
      {grpc::INVALID_ARGUMENT, [](Request* r) { r->set_stage_count(2); }},
      {grpc::INVALID_ARGUMENT,
       [](Request* r) { r->set_next_stage_address("127.0.0.1:1"); }},
      {grpc::INVALID_ARGUMENT,
       [](Request* r) { r->set_first_stage_address("127.0.0.1:1"); }},
      {grpc::INVALID_ARGUMENT, [](Request* r) { r->set_kv_block_count(0); }},
      {grpc::INVALID_ARGUMENT, [](Request* r) { r->set_max_step_tokens(0); }},
      {grpc::INVALID_ARGUMENT,
       [](Request* r) { r->set_max_step_tokens(1 << 30); }},
      {grpc::RESOURCE_EXHAUSTED,
       [](Request* r) { r->set_kv_block_count(1 << 30); }},
  };
  std::vector<Node> nodes(1);
  nodes[0] = StartNode();
  for (size_t i = 0; i < cases.size(); ++i) {
    v1::LoadStageRequest request = LoadRequest(10);
    cases[i].change(&request);
    const grpc::Status status = Load(nodes[0], request);
    EXPECT_EQ(status.error_code(), cases[i].code)
        << i << ": " << status.error_message();
    EXPECT_FALSE(status.error_message().empty());
  }
  // None of them took the epoch.
  LoadPipeline(absl::MakeSpan(nodes), 10);
  EXPECT_EQ(Load(nodes[0], LoadRequest(10)).error_code(), grpc::ABORTED);
  EXPECT_EQ(Load(nodes[0], LoadRequest(9)).error_code(), grpc::ABORTED);
}

TEST_F(WorkerServiceTest, AStageThatDoesNotFitNamesTheNumbers) {
  const Node node = StartNode(1000);
  const grpc::Status status = Load(node, LoadRequest(1));
  EXPECT_EQ(status.error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_NE(status.error_message().find("1000"), std::string::npos)
      << status.error_message();
}

TEST_F(WorkerServiceTest, StepsNeedAStage) {
  const Node node = StartNode();
  Steps steps = Open(node);
  EXPECT_EQ(steps.End().error_code(), grpc::FAILED_PRECONDITION);
}

TEST_F(WorkerServiceTest, AnEpochHasOneStreamOfPlans) {
  std::vector<Node> nodes(1);
  nodes[0] = StartNode();
  LoadPipeline(absl::MakeSpan(nodes), 1);
  Steps first = Open(nodes[0]);
  first.Run(Plan(1, 1));
  Steps second = Open(nodes[0]);
  second.stream->Write(Plan(1, 1));
  EXPECT_EQ(second.End().error_code(), grpc::ALREADY_EXISTS);
  // The first one goes on; a stream after it is one too many as well.
  EXPECT_EQ(first.Run(Plan(1, 2)).step_id(), 2);
  EXPECT_TRUE(first.End().ok());
  Steps third = Open(nodes[0]);
  third.stream->Write(Plan(1, 3));
  EXPECT_FALSE(third.End().ok());
}

TEST_F(WorkerServiceTest, AWrongPlanEndsTheStreamAndTheWorkerLivesOn) {
  std::vector<Node> nodes(1);
  nodes[0] = StartNode();
  struct Case {
    grpc::StatusCode code;
    std::function<void(v1::StepPlan*)> change;
  };
  const std::vector<Case> cases = {
      {grpc::INVALID_ARGUMENT, [](auto* p) { p->set_step_id(2); }},
      {grpc::INVALID_ARGUMENT,
       [](auto* p) { p->mutable_rows(0)->set_new_block_ids(0, 8); }},
      {grpc::INVALID_ARGUMENT,
       [](auto* p) { p->mutable_rows(0)->add_new_block_ids(0); }},
      {grpc::INVALID_ARGUMENT,
       [](auto* p) { p->mutable_rows(0)->set_position(1); }},
      {grpc::NOT_FOUND,
       [](auto* p) { p->mutable_rows(0)->set_sequence_id(2); }},
      {grpc::NOT_FOUND, [](auto* p) { p->add_released_sequence_ids(1); }},
      {grpc::ALREADY_EXISTS, [](auto* p) { AddSequence(1, p); }},
      {grpc::UNIMPLEMENTED, [](auto* p) { p->set_repeat_max(4); }},
      {grpc::INVALID_ARGUMENT,
       [](auto* p) { p->mutable_rows(0)->set_sampled_in_step_id(1); }},
      {grpc::ABORTED, [](auto* p) { p->set_epoch(p->epoch() + 1); }},
      {grpc::FAILED_PRECONDITION,
       [](auto* p) { p->set_numerics_id("cpu-1/stored"); }},
  };
  int64_t epoch = 0;
  for (size_t i = 0; i < cases.size(); ++i) {
    ++epoch;
    LoadPipeline(absl::MakeSpan(nodes), epoch);
    Steps steps = Open(nodes[0]);
    v1::StepPlan plan = Plan(epoch, 1);
    AddSequence(1, &plan);
    AddRow(1, 0, {5}, {0}, &plan);
    cases[i].change(&plan);
    ASSERT_TRUE(steps.stream->Write(plan));
    const grpc::Status status = steps.End();
    EXPECT_EQ(status.error_code(), cases[i].code)
        << i << ": " << status.error_message();
  }
  ++epoch;
  LoadPipeline(absl::MakeSpan(nodes), epoch);
  EXPECT_EQ(Decode(absl::MakeSpan(nodes), epoch, 3).size(), 3u);
}

// Each would pass every other check, and give other tokens.
TEST_F(WorkerServiceTest, DamagedMessagesAreDataLoss) {
  std::vector<Node> nodes(1);
  nodes[0] = StartNode();
  v1::LoadStageRequest load = LoadRequest(1);
  SetChecksum(&load);
  load.set_kv_block_count(load.kv_block_count() + 1);
  EXPECT_EQ(Load(nodes[0], load).error_code(), grpc::DATA_LOSS);

  LoadPipeline(absl::MakeSpan(nodes), 1);
  Steps steps = Open(nodes[0]);
  v1::StepPlan plan = Plan(1, 1);
  AddSequence(1, &plan);
  AddRow(1, 0, {5}, {0}, &plan);
  SetChecksum(&plan);
  const v1::StepResult result = steps.Run(plan);
  EXPECT_TRUE(result.has_crc32c());
  EXPECT_TRUE(CheckChecksum("the result", result).ok());
  plan = Plan(1, 2);
  AddRow(1, 1, {6}, {}, &plan);
  SetChecksum(&plan);
  plan.mutable_rows(0)->mutable_tokens()->set_ids(0, 7);
  ASSERT_TRUE(steps.stream->Write(plan));
  const grpc::Status status = steps.End();
  EXPECT_EQ(status.error_code(), grpc::DATA_LOSS) << status.error_message();

  Node first = StartNode();
  ASSERT_TRUE(
      Load(first, LoadRequest(1, 0, 2, nodes[0].worker->address())).ok());
  v1::TransferSampledTokensRequest tokens = Tokens(1, 1, 5);
  SetChecksum(&tokens);
  tokens.mutable_tokens(0)->set_token_id(6);
  EXPECT_EQ(TransferTokens(first, {tokens}).error_code(), grpc::DATA_LOSS);
}

// A worker that waited in vain for a plan or for another stage was taken for
// hung: that it lets go of its stage is a sign of life.
TEST_F(WorkerServiceTest, AStreamThatIsCancelledIsProgress) {
  const Node node = StartNode();
  for (const bool has_plans : {false, true}) {
    ASSERT_TRUE(Load(node, LoadRequest(has_plans ? 2 : 1, 1, 2)).ok());
    const int64_t before = node.worker->progress();
    Steps steps = Open(node);
    if (has_plans) {
      steps.Run(Plan(2, 1));
      v1::StepPlan plan = Plan(2, 2);
      AddSequence(1, &plan);
      AddRow(1, 0, {5}, {0}, &plan);
      ASSERT_TRUE(steps.stream->Write(plan));
    }
    EXPECT_EQ(node.worker->progress(), before);
    steps.context->TryCancel();
    EXPECT_EQ(steps.End().error_code(), grpc::CANCELLED);
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    while (node.worker->progress() == before) {
      ASSERT_LT(absl::Now(), deadline) << "with plans: " << has_plans;
    }
  }
}

TEST_F(WorkerServiceTest, ANewEpochEndsTheOldStream) {
  std::vector<Node> nodes(1);
  nodes[0] = StartNode();
  LoadPipeline(absl::MakeSpan(nodes), 1);
  Steps steps = Open(nodes[0]);
  steps.Run(Plan(1, 1));
  LoadPipeline(absl::MakeSpan(nodes), 2);
  EXPECT_EQ(steps.End().error_code(), grpc::ABORTED);
  EXPECT_EQ(Decode(absl::MakeSpan(nodes), 2, 2).size(), 2u);
}

// The second stage waits for hidden states that do not come.
TEST_F(WorkerServiceTest, ANewEpochInterruptsAWaitingStage) {
  std::vector<Node> nodes(1);
  nodes[0] = StartNode();
  ASSERT_TRUE(Load(nodes[0], LoadRequest(1, 1, 2)).ok());
  Steps steps = Open(nodes[0]);
  steps.Run(Plan(1, 1));
  v1::StepPlan plan = Plan(1, 2);
  AddSequence(1, &plan);
  AddRow(1, 0, {5}, {0}, &plan);
  ASSERT_TRUE(steps.stream->Write(plan));
  LoadPipeline(absl::MakeSpan(nodes), 2);
  EXPECT_EQ(steps.End().error_code(), grpc::ABORTED);
}

TEST_F(WorkerServiceTest, ACancelledStreamFreesTheRunner) {
  std::vector<Node> nodes(1);
  nodes[0] = StartNode();
  ASSERT_TRUE(Load(nodes[0], LoadRequest(1, 1, 2)).ok());
  Steps steps = Open(nodes[0]);
  steps.Run(Plan(1, 1));
  v1::StepPlan plan = Plan(1, 2);
  AddSequence(1, &plan);
  AddRow(1, 0, {5}, {0}, &plan);
  ASSERT_TRUE(steps.stream->Write(plan));
  steps.context->TryCancel();
  EXPECT_EQ(steps.End().error_code(), grpc::CANCELLED);
  LoadPipeline(absl::MakeSpan(nodes), 2);
  EXPECT_EQ(Decode(absl::MakeSpan(nodes), 2, 2).size(), 2u);
}

TEST_F(WorkerServiceTest, DamagedHiddenStatesEndBothStreams) {
  const Node node = StartNode();
  ASSERT_TRUE(Load(node, LoadRequest(1, 1, 2)).ok());
  Steps steps = Open(node);
  v1::StepPlan plan = Plan(1, 1);
  AddSequence(1, &plan);
  AddRow(1, 0, {5}, {0}, &plan);
  ASSERT_TRUE(steps.stream->Write(plan));
  v1::TransferHiddenStatesRequest slice =
      Slice(1, 1, std::string(kHidden * sizeof(float), '\1'));
  (*slice.mutable_slice()->mutable_data())[3] = 2;
  EXPECT_EQ(Transfer(node, {slice}).error_code(), grpc::DATA_LOSS);
  EXPECT_EQ(steps.End().error_code(), grpc::DATA_LOSS);
}

TEST_F(WorkerServiceTest, HiddenStatesOfOtherTypesOrShapesAreDataLoss) {
  const Node node = StartNode();
  const std::string data(kHidden * sizeof(float), '\0');
  int64_t epoch = 0;
  const std::vector<std::function<void(v1::TensorSlice*)>> changes = {
      [](auto* s) { s->set_data_type(v1::DATA_TYPE_FLOAT16); },
      [](auto* s) { s->clear_shape(); },
      [](auto* s) { s->add_shape(1); },
      [](auto* s) { s->set_shape(0, int64_t{1} << 62); },
      [](auto* s) { s->set_shape(1, -1); },
      [](auto* s) { s->set_offset_bytes(-4); },
      [](auto* s) { s->set_total_bytes(int64_t{1} << 62); },
  };
  for (const auto& change : changes) {
    ++epoch;
    ASSERT_TRUE(Load(node, LoadRequest(epoch, 1, 2)).ok());
    v1::TransferHiddenStatesRequest slice = Slice(epoch, 1, data);
    change(slice.mutable_slice());
    EXPECT_EQ(Transfer(node, {slice}).error_code(), grpc::DATA_LOSS);
  }
}

TEST_F(WorkerServiceTest, HiddenStatesOfOtherEpochsAreDroppedOrAborted) {
  const Node node = StartNode();
  const std::string data(kHidden * sizeof(float), '\0');
  EXPECT_EQ(Transfer(node, {Slice(1, 1, data)}).error_code(), grpc::ABORTED);
  ASSERT_TRUE(Load(node, LoadRequest(3, 1, 2)).ok());
  int64_t tensor_count = -1;
  EXPECT_TRUE(Transfer(node, {Slice(2, 1, data)}, &tensor_count).ok());
  EXPECT_EQ(tensor_count, 0);
  EXPECT_EQ(Transfer(node, {Slice(4, 1, data)}).error_code(), grpc::ABORTED);
  EXPECT_TRUE(
      Transfer(node, {Slice(3, 1, data), Slice(3, 2, data)}, &tensor_count)
          .ok());
  EXPECT_EQ(tensor_count, 2);
  EXPECT_EQ(Transfer(node, {Slice(3, 3, data)}).error_code(),
            grpc::ALREADY_EXISTS);
}

TEST_F(WorkerServiceTest, TokensOfOtherEpochsAreDroppedOrAborted) {
  const Node node = StartNode();
  EXPECT_EQ(TransferTokens(node, {Tokens(1, 1, 5)}).error_code(),
            grpc::ABORTED);
  ASSERT_TRUE(Load(node, LoadRequest(3, 0, 2, node.worker->address())).ok());
  int64_t step_count = -1;
  EXPECT_TRUE(TransferTokens(node, {Tokens(2, 1, 5)}, &step_count).ok());
  EXPECT_EQ(step_count, 0);
  EXPECT_EQ(TransferTokens(node, {Tokens(4, 1, 5)}).error_code(),
            grpc::ABORTED);
  v1::TransferSampledTokensRequest other = Tokens(3, 1, 5);
  other.set_pipeline_id("q");
  EXPECT_EQ(TransferTokens(node, {other}).error_code(),
            grpc::FAILED_PRECONDITION);
  EXPECT_TRUE(
      TransferTokens(node, {Tokens(3, 1, 5), Tokens(3, 2, 5)}, &step_count)
          .ok());
  EXPECT_EQ(step_count, 2);
  EXPECT_EQ(TransferTokens(node, {Tokens(3, 3, 5)}).error_code(),
            grpc::ALREADY_EXISTS);
  // The last stage, and the only one, are told nothing.
  ASSERT_TRUE(Load(node, LoadRequest(4, 1, 2)).ok());
  EXPECT_EQ(TransferTokens(node, {Tokens(4, 1, 5)}).error_code(),
            grpc::FAILED_PRECONDITION);
  ASSERT_TRUE(Load(node, LoadRequest(5)).ok());
  EXPECT_EQ(TransferTokens(node, {Tokens(5, 1, 5)}).error_code(),
            grpc::FAILED_PRECONDITION);
}

// Of the ring as of the chain: the pipeline is given up on every side.
TEST_F(WorkerServiceTest, DamagedTokensEndBothStreams) {
  std::vector<Node> nodes;
  nodes.push_back(StartNode());
  nodes.push_back(StartNode());
  ASSERT_TRUE(Load(nodes[1], LoadRequest(1, 1, 2)).ok());
  ASSERT_TRUE(
      Load(nodes[0], LoadRequest(1, 0, 2, nodes[1].worker->address())).ok());
  Steps steps = Open(nodes[0]);
  v1::StepPlan plan = Plan(1, 1);
  AddSequence(1, &plan);
  AddRow(1, 0, {5}, {0}, &plan);
  steps.Run(plan);
  plan = Plan(1, 2);
  AddRow(1, 1, {}, {}, &plan)->set_sampled_in_step_id(1);
  ASSERT_TRUE(steps.stream->Write(plan));
  EXPECT_EQ(TransferTokens(nodes[0], {Tokens(1, 1, 1 << 20)}).error_code(),
            grpc::DATA_LOSS);
  EXPECT_EQ(steps.End().error_code(), grpc::DATA_LOSS);
}

// The first stage waits for the token of a last one that is gone.
TEST_F(WorkerServiceTest, ALastStageThatGoesEndsTheWaitForItsTokens) {
  std::vector<Node> nodes;
  nodes.push_back(StartNode());
  nodes.push_back(StartNode());
  LoadPipeline(absl::MakeSpan(nodes), 1);
  Steps first = Open(nodes[0]);
  Steps last = Open(nodes[1]);
  v1::StepPlan plan = Plan(1, 1);
  AddSequence(1, &plan);
  AddRow(1, 0, {5}, {0}, &plan);
  first.stream->Write(plan);
  last.stream->Write(plan);
  first.Next();
  last.Next();
  // The next step reaches the first stage alone, and the one after waits.
  plan = Plan(1, 2);
  AddRow(1, 1, {}, {}, &plan)->set_sampled_in_step_id(1);
  first.stream->Write(plan);
  first.Next();
  plan = Plan(1, 3);
  AddRow(1, 2, {}, {}, &plan)->set_sampled_in_step_id(2);
  first.stream->Write(plan);
  nodes[1].worker->Shutdown();
  const grpc::Status status = first.End();
  EXPECT_EQ(status.error_code(), grpc::UNAVAILABLE);
  EXPECT_NE(status.error_message().find("last stage"), std::string::npos)
      << status.error_message();
}

TEST_F(WorkerServiceTest, ALostFirstStageIsUnavailableByName) {
  std::vector<Node> nodes;
  nodes.push_back(StartNode());
  nodes.push_back(StartNode());
  const std::string address = nodes[0].worker->address();
  LoadPipeline(absl::MakeSpan(nodes), 1);
  nodes[0].worker->Shutdown();
  Steps steps = Open(nodes[1]);
  const std::string data(kHidden * sizeof(float), '\0');
  grpc::ClientContext context;
  context.set_deadline(Deadline());
  v1::TransferHiddenStatesResponse response;
  const auto stream = nodes[1].stub->TransferHiddenStates(&context, &response);
  // The link notices with one of the first writes.
  for (int i = 1; i <= 100; ++i) {
    v1::StepPlan plan = Plan(1, i);
    if (i == 1) AddSequence(1, &plan);
    AddRow(1, i - 1, {5},
           i % kBlockTokens == 1 ? std::vector<int32_t>{i / kBlockTokens}
                                 : std::vector<int32_t>(),
           &plan);
    if (!stream->Write(Slice(1, i, data)) || !steps.stream->Write(plan)) break;
    v1::StepResult result;
    if (!steps.stream->Read(&result)) break;
  }
  const grpc::Status status = steps.End();
  EXPECT_EQ(status.error_code(), grpc::UNAVAILABLE) << status.error_message();
  EXPECT_NE(status.error_message().find(address), std::string::npos)
      << status.error_message();
}

// More tensors than the inbox holds, before their plans.
TEST_F(WorkerServiceTest, AFullInboxHoldsTheSenderBack) {
  const Node node = StartNode();
  ASSERT_TRUE(Load(node, LoadRequest(1, 1, 2)).ok());
  constexpr int kSteps = 20;
  grpc::ClientContext context;
  context.set_deadline(Deadline());
  v1::TransferHiddenStatesResponse response;
  const auto stream = node.stub->TransferHiddenStates(&context, &response);
  for (int i = 1; i <= kSteps; ++i) {
    ASSERT_TRUE(
        stream->Write(Slice(1, i, std::string(kHidden * sizeof(float), '\0'))));
  }
  stream->WritesDone();
  Steps steps = Open(node);
  for (int i = 1; i <= kSteps; ++i) {
    v1::StepPlan plan = Plan(1, i);
    if (i == 1) AddSequence(1, &plan);
    AddRow(1, i - 1, {5},
           i % kBlockTokens == 1 ? std::vector<int32_t>{i / kBlockTokens}
                                 : std::vector<int32_t>(),
           &plan);
    EXPECT_EQ(steps.Run(plan).sampled_size(), 1);
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(response.tensor_count(), kSteps);
  EXPECT_TRUE(steps.End().ok());
}

// A coordinator sends the next plans before it has the results of the last.
TEST_F(WorkerServiceTest, PlansMayComeWhileResultsGo) {
  constexpr int kPlans = 100;
  std::vector<Node> nodes;
  nodes.push_back(StartNode());
  LoadPipeline(absl::MakeSpan(nodes), 1);
  const auto plan = [&](int i) {
    v1::StepPlan plan = Plan(1, i);
    if (i == 1) AddSequence(1, &plan);
    AddRow(1, i - 1, {5},
           i % kBlockTokens == 1 ? std::vector<int32_t>{i / kBlockTokens}
                                 : std::vector<int32_t>(),
           &plan);
    return plan;
  };
  Steps steps = Open(nodes[0]);
  std::thread writer([&] {
    for (int i = 1; i <= kPlans; ++i) {
      if (!steps.stream->Write(plan(i))) return;
    }
  });
  for (int i = 1; i <= kPlans; ++i) {
    v1::StepResult result;
    if (!steps.stream->Read(&result)) break;
    EXPECT_EQ(result.step_id(), i);
    ASSERT_EQ(result.sampled_size(), 1);
    EXPECT_EQ(result.sampled(0).position(), i);
  }
  writer.join();
  const grpc::Status status = steps.End();
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST_F(WorkerServiceTest, ALostNextStageIsUnavailable) {
  std::vector<Node> nodes;
  nodes.push_back(StartNode());
  nodes.push_back(StartNode());
  LoadPipeline(absl::MakeSpan(nodes), 1);
  nodes[1].worker->Shutdown();
  Steps steps = Open(nodes[0]);
  // The link notices with one of the first writes.
  for (int i = 1; i <= 100; ++i) {
    v1::StepPlan plan = Plan(1, i);
    if (i == 1) AddSequence(1, &plan);
    AddRow(1, i - 1, {5},
           i % kBlockTokens == 1 ? std::vector<int32_t>{i / kBlockTokens}
                                 : std::vector<int32_t>(),
           &plan);
    if (!steps.stream->Write(plan)) break;
    v1::StepResult result;
    if (!steps.stream->Read(&result)) break;
  }
  const grpc::Status status = steps.End();
  EXPECT_EQ(status.error_code(), grpc::UNAVAILABLE) << status.error_message();
  // The survivor serves all by itself.
  LoadPipeline(absl::MakeSpan(nodes).first(1), 2);
  EXPECT_EQ(Decode(absl::MakeSpan(nodes).first(1), 2, 2).size(), 2u);
}

TEST_F(WorkerServiceTest, ShutdownEndsStreamsAtOnce) {
  std::vector<Node> nodes(1);
  nodes[0] = StartNode();
  LoadPipeline(absl::MakeSpan(nodes), 1);
  Steps steps = Open(nodes[0]);
  steps.Run(Plan(1, 1));
  nodes[0].worker->Shutdown();
  EXPECT_EQ(steps.End().error_code(), grpc::UNAVAILABLE);
}

}  // namespace
}  // namespace tern
