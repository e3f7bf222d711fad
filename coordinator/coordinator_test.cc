#include "coordinator/coordinator.h"

#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "blob/model_content.h"
#include "coordinator/model_instance.h"
#include "coordinator/testing/fake_worker.h"
#include "coordinator/testing/toy_model.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "gtest/gtest.h"
#include "model/gguf_reader.h"
#include "model/model_source.h"
#include "model/tokenizer.h"
#include "proto/tern/v1/blob.grpc.pb.h"
#include "proto/tern/v1/blob.pb.h"
#include "proto/tern/v1/cluster.grpc.pb.h"
#include "proto/tern/v1/error.pb.h"
#include "proto/tern/v1/inference.grpc.pb.h"
#include "tests/testing/gguf_builder.h"
#include "tests/testing/tiny_model.h"

namespace tern {
namespace {

// The toy model samples single bytes of ASCII: every cut of its text is text.
constexpr int kToyVocab = 128;
constexpr absl::Duration kPatience = absl::Seconds(60);

// A coordinator on a tiny model and toy workers, all over real gRPC.
class CoordinatorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.models.resize(1);
    UseModel(testing::WriteTinyModel({}));
    options_.listen = "127.0.0.1:0";
    Model().name = "tiny";
    options_.lease = absl::Hours(1);
    Model().kv_cache_tokens = 4096;
  }

  // Serves another file in place of the one before, which is removed.
  void UseModel(const std::string& path) {
    if (!model_path_.empty()) std::remove(model_path_.c_str());
    model_path_ = path;
    Model().path = path;
    auto file = GgufReader::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    auto tokenizer = Tokenizer::FromGguf(**file, 320);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }

  // A model that ends turns with <|eot_id|>; `chat_template` in its file, if
  // not empty.
  void UseChatModel(const std::string& chat_template) {
    testing::TinyModelOptions tiny;
    tiny.add_eot = true;
    testing::GgufBuilder builder = testing::TinyModel(tiny);
    if (!chat_template.empty()) {
      builder.SetString("tokenizer.chat_template", chat_template);
    }
    UseModel(testing::WriteTempFile(builder.Build()));
  }

  void TearDown() override {
    for (const auto& worker : workers_) worker->Release();
    coordinator_.reset();
    for (const auto& worker : workers_) {
      EXPECT_EQ(worker->broken_rule(), "");
      EXPECT_TRUE(worker->AwaitSequences(0));
    }
    std::remove(model_path_.c_str());
  }

  // Starts the coordinator and as many workers as it needs.
  void Start(int n_stages = 1) {
    Model().n_stages = n_stages;
    auto coordinator = Coordinator::Create(options_);
    ASSERT_TRUE(coordinator.ok()) << coordinator.status();
    coordinator_ = *std::move(coordinator);
    address_ = absl::StrCat("127.0.0.1:", coordinator_->port());
    auto channel =
        grpc::CreateChannel(address_, grpc::InsecureChannelCredentials());
    stub_ = v1::InferenceService::NewStub(channel);
    cluster_stub_ = v1::ClusterService::NewStub(channel);
    for (int i = 0; i < n_stages; ++i) {
      AddWorker(absl::StrCat("w", i));
    }
    AwaitReady();
  }

  FakeWorker* AddWorker(const std::string& id) {
    workers_.push_back(std::make_unique<FakeWorker>(id, "tiny", kToyVocab));
    const absl::Status status = workers_.back()->Register(address_);
    EXPECT_TRUE(status.ok()) << status;
    return workers_.back().get();
  }

  v1::Pipeline GetPipeline() {
    grpc::ClientContext context;
    v1::GetModelResponse response;
    const grpc::Status status = stub_->GetModel(&context, {}, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.model().pipelines(0);
  }

  // Waits until the pipeline is as `is_so` says.
  void Await(const std::function<bool(const v1::Pipeline&)>& is_so) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (!is_so(GetPipeline())) {
      ASSERT_LT(absl::Now(), deadline) << GetPipeline().DebugString();
    }
  }
  void AwaitReady() {
    Await([](const v1::Pipeline& p) {
      return p.state() == v1::PIPELINE_STATE_READY;
    });
  }
  void AwaitNoBlocksInUse() {
    Await([](const v1::Pipeline& p) { return p.kv_block_in_use_count() == 0; });
  }

  v1::GenerateRequest Request(const std::string& text, int n_tokens) {
    v1::GenerateRequest request;
    request.set_text(text);
    request.mutable_sampling()->set_seed(11);
    request.mutable_stopping()->set_max_output_tokens(n_tokens);
    return request;
  }

  v1::GenerateRequest ChatRequest(
      const std::vector<std::pair<v1::ChatRole, std::string>>& messages,
      int n_tokens) {
    v1::GenerateRequest request = Request("", n_tokens);
    for (const auto& [role, content] : messages) {
      v1::ChatMessage* message = request.mutable_chat()->add_messages();
      message->set_role(role);
      message->set_content(content);
    }
    return request;
  }

  bool HasChatTemplate() {
    grpc::ClientContext context;
    v1::GetModelResponse response;
    EXPECT_TRUE(stub_->GetModel(&context, {}, &response).ok());
    return response.model().has_chat_template();
  }

  // What the toy model answers to a prompt.
  std::vector<int32_t> AnswerIds(const std::string& text, int n) {
    return ToyAnswer(tokenizer_->Encode(text, {}).value(), 11, n, kToyVocab);
  }
  std::string Answer(const std::string& text, int n) {
    return tokenizer_->Decode(AnswerIds(text, n), false);
  }

  grpc::Status Generate(const v1::GenerateRequest& request,
                        v1::GenerateResponse* response) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
    return stub_->Generate(&context, request, response);
  }

  // The rest of a stream.
  struct Streamed {
    int n_messages = 0;
    std::string text;
    v1::StreamGenerateResponse last;
    grpc::Status status;
  };
  using Stream = grpc::ClientReader<v1::StreamGenerateResponse>;
  static Streamed ReadAll(Stream* stream) {
    Streamed streamed;
    v1::StreamGenerateResponse message;
    while (stream->Read(&message)) {
      ++streamed.n_messages;
      streamed.text += message.delta().text();
      streamed.last = message;
    }
    streamed.status = stream->Finish();
    return streamed;
  }

  std::unique_ptr<Stream> OpenStream(grpc::ClientContext* context,
                                     const v1::GenerateRequest& request) {
    v1::StreamGenerateRequest wrapped;
    *wrapped.mutable_request() = request;
    return stub_->StreamGenerate(context, wrapped);
  }

  // Opens a stream and reads its first message, so that it is admitted.
  std::unique_ptr<Stream> OpenAdmitted(grpc::ClientContext* context,
                                       const v1::GenerateRequest& request) {
    std::unique_ptr<Stream> stream = OpenStream(context, request);
    v1::StreamGenerateResponse first;
    EXPECT_TRUE(stream->Read(&first));
    EXPECT_TRUE(first.has_prompt_info());
    EXPECT_FALSE(first.has_delta());
    return stream;
  }

  grpc::Status Abort(const std::string& request_id) {
    grpc::ClientContext context;
    v1::AbortRequest request;
    request.set_request_id(request_id);
    v1::AbortResponse response;
    return stub_->Abort(&context, request, &response);
  }

  ModelSpec& Model() { return options_.models.front(); }

  std::string model_path_;
  Coordinator::Options options_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::string address_;
  std::unique_ptr<v1::InferenceService::Stub> stub_;
  std::unique_ptr<v1::ClusterService::Stub> cluster_stub_;
  std::vector<std::unique_ptr<FakeWorker>> workers_;
  std::unique_ptr<Coordinator> coordinator_;
};

TEST_F(CoordinatorTest, GeneratesTheWholeAnswer) {
  Start();
  v1::GenerateRequest request = Request("To be, or not", 40);
  request.set_request_id("mine");
  request.mutable_response_options()->set_return_token_ids(true);
  v1::GenerateResponse response;
  const grpc::Status status = Generate(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.candidates_size(), 1);
  const v1::Candidate& candidate = response.candidates(0);
  EXPECT_EQ(candidate.text(), Answer("To be, or not", 40));
  EXPECT_EQ(std::vector<int32_t>(candidate.token_ids().begin(),
                                 candidate.token_ids().end()),
            AnswerIds("To be, or not", 40));
  EXPECT_EQ(candidate.finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(response.prompt_info().request_id(), "mine");
  EXPECT_EQ(response.prompt_info().model(), "tiny");
  EXPECT_EQ(response.prompt_info().seed(), 11);
  EXPECT_EQ(response.prompt_info().numerics_id(), "cpu-1/int8");
  EXPECT_EQ(response.usage().output_token_count(), 40);
  EXPECT_EQ(response.usage().prompt_token_count(),
            static_cast<int>(tokenizer_->Encode("To be, or not", {})->size()));
  AwaitNoBlocksInUse();
}

TEST_F(CoordinatorTest, StreamsTheSameAnswerThroughTwoStages) {
  Start(2);
  grpc::ClientContext context;
  auto stream = OpenAdmitted(&context, Request("To be, or not", 60));
  const Streamed streamed = ReadAll(stream.get());
  EXPECT_TRUE(streamed.status.ok()) << streamed.status.error_message();
  EXPECT_EQ(streamed.text, Answer("To be, or not", 60));
  EXPECT_EQ(streamed.last.delta().finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(streamed.last.usage().output_token_count(), 60);
  // The second token's row, at least, was sent before the first token had come
  // back: the last stage tells it to the first.
  for (const auto& worker : workers_) {
    EXPECT_GT(worker->n_rows_ahead(), 0);
    const bool is_last = worker->stage().stage_index() == 1;
    const FakeWorker* other = workers_[worker == workers_[0] ? 1 : 0].get();
    EXPECT_EQ(worker->stage().first_stage_address(),
              is_last ? other->address() : "");
    EXPECT_EQ(worker->stage().next_stage_address(),
              is_last ? "" : other->address());
  }
}

TEST_F(CoordinatorTest, DrawsASeedAndAnIdWhenThereAreNone) {
  Start();
  v1::GenerateRequest request = Request("x", 5);
  request.clear_sampling();
  v1::GenerateResponse a, b;
  ASSERT_TRUE(Generate(request, &a).ok());
  ASSERT_TRUE(Generate(request, &b).ok());
  EXPECT_GE(a.prompt_info().seed(), 0);
  EXPECT_NE(a.prompt_info().seed(), b.prompt_info().seed());
  EXPECT_NE(a.prompt_info().request_id(), b.prompt_info().request_id());
  // The seed returned gives the answer again.
  request.mutable_sampling()->set_seed(a.prompt_info().seed());
  ASSERT_TRUE(Generate(request, &b).ok());
  EXPECT_EQ(a.candidates(0).text(), b.candidates(0).text());
}

TEST_F(CoordinatorTest, StopStringsEndTheAnswerRightBeforeThem) {
  Start();
  const std::string whole = Answer("stop", 100);
  const std::string stop = whole.substr(50, 3);
  v1::GenerateRequest request = Request("stop", 100);
  request.mutable_stopping()->add_stop_strings(stop);
  request.mutable_stopping()->add_stop_strings("never in there");
  v1::GenerateResponse response;
  ASSERT_TRUE(Generate(request, &response).ok());
  EXPECT_EQ(response.candidates(0).text(), whole.substr(0, whole.find(stop)));
  EXPECT_EQ(response.candidates(0).finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(response.candidates(0).stop_string(), stop);
  EXPECT_EQ(response.usage().output_token_count(),
            static_cast<int>(whole.find(stop) + stop.size()));
  AwaitNoBlocksInUse();
}

TEST_F(CoordinatorTest, StopTokensEndTheAnswerAndAreNoPartOfIt) {
  Start();
  const std::vector<int32_t> ids = AnswerIds("stop", 50);
  v1::GenerateRequest request = Request("stop", 50);
  request.mutable_stopping()->add_stop_token_ids(ids[20]);
  v1::GenerateResponse response;
  ASSERT_TRUE(Generate(request, &response).ok());
  int first = 0;
  while (ids[first] != ids[20]) ++first;
  EXPECT_EQ(response.candidates(0).text(), Answer("stop", first));
  EXPECT_EQ(response.candidates(0).stop_token_id(), ids[20]);
  EXPECT_EQ(response.usage().output_token_count(), first + 1);
}

TEST_F(CoordinatorTest, AnswersConversationsInOneMessageStreamsAndBatches) {
  UseChatModel("");
  Start();
  EXPECT_TRUE(HasChatTemplate());
  const v1::GenerateRequest request =
      ChatRequest({{v1::CHAT_ROLE_SYSTEM, "Be brief."},
                   {v1::CHAT_ROLE_USER, "Hi <|eot_id|>"}},
                  30);
  // By hand: the tokens that the template spells, and those that the user does
  // not get.
  std::vector<int32_t> prompt =
      tokenizer_->Encode("System: Be brief.", {}).value();
  const std::vector<int32_t> user = {
      317, 85, 115, 262, 58,  32,  72, 105,  // <eot>User: Hi
      32,  60, 124, 101, 111, 116, 95, 105, 100, 124, 62, 317};
  const std::vector<int32_t> assistant =
      tokenizer_->Encode("Assistant: ", {false, false}).value();
  prompt.insert(prompt.end(), user.begin(), user.end());
  prompt.insert(prompt.end(), assistant.begin(), assistant.end());
  const std::string answer = tokenizer_->Decode(
      ToyAnswer(prompt, /*seed=*/11, /*n=*/30, kToyVocab), false);

  v1::GenerateResponse response;
  const grpc::Status status = Generate(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.candidates(0).text(), answer);
  EXPECT_EQ(response.usage().prompt_token_count(),
            static_cast<int>(prompt.size()));

  grpc::ClientContext stream_context;
  auto stream = OpenAdmitted(&stream_context, request);
  EXPECT_EQ(ReadAll(stream.get()).text, answer);

  grpc::ClientContext batch_context;
  auto batch = stub_->BatchGenerate(&batch_context);
  v1::BatchGenerateRequest prompt_of_batch;
  *prompt_of_batch.mutable_request() = request;
  ASSERT_TRUE(batch->Write(prompt_of_batch));
  ASSERT_TRUE(batch->WritesDone());
  v1::BatchGenerateResponse result;
  ASSERT_TRUE(batch->Read(&result));
  EXPECT_EQ(result.response().candidates(0).text(), answer);
  EXPECT_TRUE(batch->Finish().ok());
}

TEST_F(CoordinatorTest, SaysWhyThereIsNoChat) {
  const auto expect_no_chat = [this](const std::string& why) {
    Start();
    EXPECT_FALSE(HasChatTemplate());
    v1::GenerateResponse response;
    const grpc::Status status =
        Generate(ChatRequest({{v1::CHAT_ROLE_USER, "Hi"}}, 5), &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_NE(status.error_message().find(why), std::string::npos)
        << status.error_message();
    EXPECT_NE(status.error_message().find("--chat_template=FILE"),
              std::string::npos)
        << status.error_message();
    EXPECT_TRUE(Generate(Request("Hi", 5), &response).ok());
  };
  expect_no_chat("comes without a chat template");
  UseChatModel("{% if %}");
  expect_no_chat("chat template, line 1: expected an expression");
}

TEST_F(CoordinatorTest, ATemplateFileStandsInForTheModelsOwn) {
  UseChatModel("{% if %}");
  const std::string path = ::testing::TempDir() + "/coordinator_test.jinja";
  std::ofstream(path) << "{% if messages|length > 1 %}"
                         "{{ raise_exception('one at a time') }}{% endif %}"
                         "{{ messages[0].content }}";
  Model().chat_template_path = path;
  Start();
  EXPECT_TRUE(HasChatTemplate());
  v1::GenerateResponse response;
  ASSERT_TRUE(
      Generate(ChatRequest({{v1::CHAT_ROLE_USER, "To be"}}, 20), &response)
          .ok());
  EXPECT_EQ(response.candidates(0).text(), Answer("To be", 20));
  const grpc::Status refused = Generate(
      ChatRequest({{v1::CHAT_ROLE_USER, "a"}, {v1::CHAT_ROLE_USER, "b"}}, 20),
      &response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(refused.error_message().find("one at a time"), std::string::npos)
      << refused.error_message();

  // One that was asked for has to be good.
  for (const std::string& bad : {std::string("{% if %}"), std::string()}) {
    std::remove(path.c_str());
    if (!bad.empty()) std::ofstream(path) << bad;
    const absl::Status status = Coordinator::Create(options_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_NE(std::string(status.message()).find(path), std::string::npos)
        << status;
  }
}

TEST_F(CoordinatorTest, ASlowReaderLosesNothing) {
  Start();
  grpc::ClientContext context;
  auto stream = OpenAdmitted(&context, Request("slow", 200));
  // Everything is generated before anything is read.
  AwaitNoBlocksInUse();
  ASSERT_TRUE(workers_[0]->AwaitSequences(0));
  const Streamed streamed = ReadAll(stream.get());
  EXPECT_TRUE(streamed.status.ok());
  EXPECT_EQ(streamed.text, Answer("slow", 200));
}

TEST_F(CoordinatorTest, CancelledCallsLeaveNothingBehind) {
  Start();
  workers_[0]->Hold();
  grpc::ClientContext context;
  auto stream = OpenAdmitted(&context, Request("cancel", 200));
  ASSERT_TRUE(workers_[0]->AwaitSequences(1));
  context.TryCancel();
  EXPECT_EQ(ReadAll(stream.get()).status.error_code(),
            grpc::StatusCode::CANCELLED);
  AwaitNoBlocksInUse();
  workers_[0]->Release();
  EXPECT_TRUE(workers_[0]->AwaitSequences(0));
  EXPECT_EQ(workers_[0]->n_blocks_in_use(), 0);
}

TEST_F(CoordinatorTest, DeadlinesEndCallsAndLeaveNothingBehind) {
  Start();
  workers_[0]->Hold();
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(1)));
  auto stream = OpenStream(&context, Request("late", 200));
  EXPECT_EQ(ReadAll(stream.get()).status.error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  AwaitNoBlocksInUse();
  workers_[0]->Release();
  EXPECT_TRUE(workers_[0]->AwaitSequences(0));
}

TEST_F(CoordinatorTest, AbortEndsAnotherCallsRequest) {
  Start();
  workers_[0]->Hold();
  v1::GenerateRequest request = Request("abort", 200);
  request.set_request_id("it");
  grpc::ClientContext context;
  auto stream = OpenAdmitted(&context, request);
  EXPECT_EQ(Abort("other").error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Abort("").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(Abort("it").ok());
  EXPECT_EQ(ReadAll(stream.get()).status.error_code(),
            grpc::StatusCode::CANCELLED);
  EXPECT_EQ(Abort("it").error_code(), grpc::StatusCode::NOT_FOUND);
  workers_[0]->Release();
  EXPECT_TRUE(workers_[0]->AwaitSequences(0));
}

TEST_F(CoordinatorTest, ARequestIdMayNotBeRepeatedWhileInProgress) {
  Start();
  workers_[0]->Hold();
  v1::GenerateRequest request = Request("twice", 10);
  request.set_request_id("it");
  grpc::ClientContext context;
  auto stream = OpenAdmitted(&context, request);
  v1::GenerateResponse response;
  EXPECT_EQ(Generate(request, &response).error_code(),
            grpc::StatusCode::ALREADY_EXISTS);
  workers_[0]->Release();
  EXPECT_TRUE(ReadAll(stream.get()).status.ok());
  EXPECT_TRUE(Generate(request, &response).ok());
}

TEST_F(CoordinatorTest, ARefusedRequestIsToldWhenToTryAgain) {
  options_.max_sequences = 1;
  options_.max_queued_requests = 1;
  Start();
  workers_[0]->Hold();
  grpc::ClientContext running_call, waiting_call;
  auto running = OpenAdmitted(&running_call, Request("a", 50));
  ASSERT_TRUE(workers_[0]->AwaitAnySequence());
  auto waiting = OpenAdmitted(&waiting_call, Request("b", 50));
  grpc::ClientContext refused_call;
  v1::GenerateResponse response;
  const grpc::Status refused =
      stub_->Generate(&refused_call, Request("c", 5), &response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  v1::StatusDetails details;
  ASSERT_TRUE(details.ParseFromString(refused.error_details()));
  ASSERT_EQ(details.details_size(), 1);
  v1::RetryInfo info;
  ASSERT_TRUE(info.ParseFromString(details.details(0).value()));
  EXPECT_GE(info.retry_delay().seconds(), 1);
  running_call.TryCancel();
  waiting_call.TryCancel();
  ReadAll(running.get());
  ReadAll(waiting.get());
}

TEST_F(CoordinatorTest, ABatchOf200PromptsComesBackWhole) {
  options_.max_sequences = 8;
  options_.max_queued_requests = 16;
  Start();
  grpc::ClientContext context;
  auto stream = stub_->BatchGenerate(&context);
  std::thread writer([this, &stream] {
    for (int i = 0; i < 200; ++i) {
      v1::BatchGenerateRequest request;
      request.set_index(i);
      *request.mutable_request() = Request(absl::StrCat("prompt ", i), 20);
      // Every tenth one is bad, and costs the others nothing.
      if (i % 10 == 7) request.mutable_request()->set_text("");
      EXPECT_TRUE(stream->Write(request));
    }
    EXPECT_TRUE(stream->WritesDone());
  });
  std::set<int64_t> seen;
  v1::BatchGenerateResponse response;
  while (stream->Read(&response)) {
    const int64_t i = response.index();
    EXPECT_TRUE(seen.insert(i).second) << i;
    if (i % 10 == 7) {
      EXPECT_EQ(response.error().code(), 3) << response.DebugString();
    } else {
      ASSERT_TRUE(response.has_response()) << response.DebugString();
      EXPECT_EQ(response.response().candidates(0).text(),
                Answer(absl::StrCat("prompt ", i), 20));
    }
  }
  writer.join();
  const grpc::Status status = stream->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(seen.size(), 200u);
  AwaitNoBlocksInUse();
}

TEST_F(CoordinatorTest, SeveralBatchesShareAShortQueue) {
  options_.max_sequences = 2;
  options_.max_queued_requests = 4;
  Start();
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([this, caller] {
      grpc::ClientContext context;
      auto stream = stub_->BatchGenerate(&context);
      const auto prompt = [caller](int64_t i) {
        return absl::StrCat("caller ", caller, " prompt ", i);
      };
      std::thread writer([this, &stream, prompt] {
        for (int i = 0; i < 30; ++i) {
          v1::BatchGenerateRequest request;
          request.set_index(i);
          *request.mutable_request() = Request(prompt(i), 10);
          EXPECT_TRUE(stream->Write(request));
        }
        EXPECT_TRUE(stream->WritesDone());
      });
      int n_results = 0;
      v1::BatchGenerateResponse response;
      while (stream->Read(&response)) {
        ++n_results;
        if (response.has_response()) {
          EXPECT_EQ(response.response().candidates(0).text(),
                    Answer(prompt(response.index()), 10));
        } else {
          // Nothing of this call was in progress to wait for.
          EXPECT_EQ(response.error().code(), 8) << response.DebugString();
          EXPECT_GE(response.error().retry_delay().seconds(), 1);
        }
      }
      writer.join();
      EXPECT_TRUE(stream->Finish().ok());
      EXPECT_EQ(n_results, 30);
    });
  }
  for (std::thread& caller : callers) caller.join();
}

TEST_F(CoordinatorTest, ARepeatedIndexFailsTheBatch) {
  Start();
  grpc::ClientContext context;
  auto stream = stub_->BatchGenerate(&context);
  v1::BatchGenerateRequest request;
  request.set_index(3);
  *request.mutable_request() = Request("x", 5);
  stream->Write(request);
  stream->Write(request);
  stream->WritesDone();
  v1::BatchGenerateResponse response;
  while (stream->Read(&response)) {
  }
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(status.error_message().find("index 3"), std::string::npos);
  AwaitNoBlocksInUse();
}

TEST_F(CoordinatorTest, ACancelledBatchLeavesNothingBehind) {
  Start();
  workers_[0]->Hold();
  {
    grpc::ClientContext context;
    auto stream = stub_->BatchGenerate(&context);
    v1::BatchGenerateRequest request;
    *request.mutable_request() = Request("x", 50);
    for (int i = 0; i < 5; ++i) {
      request.set_index(i);
      EXPECT_TRUE(stream->Write(request));
    }
    ASSERT_TRUE(workers_[0]->AwaitAnySequence());
    context.TryCancel();
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  AwaitNoBlocksInUse();
  workers_[0]->Release();
  EXPECT_TRUE(workers_[0]->AwaitSequences(0));
}

TEST_F(CoordinatorTest, GoesOnWithTheSameTextAfterAWorkerDies) {
  Start(2);
  workers_[1]->Hold();
  grpc::ClientContext a_context, b_context;
  auto a = OpenAdmitted(&a_context, Request("first", 100));
  auto b = OpenAdmitted(&b_context, Request("the second one", 100));
  ASSERT_TRUE(workers_[0]->AwaitSequences(2));
  FakeWorker* spare = AddWorker("w9");
  workers_[1]->BreakStream();
  EXPECT_TRUE(spare->AwaitLoads(1));
  const Streamed a_read = ReadAll(a.get());
  const Streamed b_read = ReadAll(b.get());
  EXPECT_TRUE(a_read.status.ok()) << a_read.status.error_message();
  EXPECT_TRUE(b_read.status.ok()) << b_read.status.error_message();
  EXPECT_EQ(a_read.text, Answer("first", 100));
  EXPECT_EQ(b_read.text, Answer("the second one", 100));
  const v1::Pipeline pipeline = GetPipeline();
  EXPECT_EQ(pipeline.stages(0).worker_id(), "w0");
  EXPECT_EQ(pipeline.stages(1).worker_id(), "w9");
}

TEST_F(CoordinatorTest, ARestartedWorkerResumesItsStreams) {
  Start();
  workers_[0]->Hold();
  grpc::ClientContext context;
  auto stream = OpenAdmitted(&context, Request("again", 100));
  ASSERT_TRUE(workers_[0]->AwaitSequences(1));
  workers_[0]->BreakStream();
  Await([](const v1::Pipeline& p) {
    return p.state() == v1::PIPELINE_STATE_WAITING;
  });
  workers_[0]->Release();
  ASSERT_TRUE(workers_[0]->Register(address_).ok());
  const Streamed streamed = ReadAll(stream.get());
  EXPECT_TRUE(streamed.status.ok()) << streamed.status.error_message();
  EXPECT_EQ(streamed.text, Answer("again", 100));
}

TEST_F(CoordinatorTest, SaysWhyThereIsNoPipeline) {
  Model().n_stages = 1;
  auto coordinator = Coordinator::Create(options_);
  ASSERT_TRUE(coordinator.ok()) << coordinator.status();
  coordinator_ = *std::move(coordinator);
  address_ = absl::StrCat("127.0.0.1:", coordinator_->port());
  stub_ = v1::InferenceService::NewStub(
      grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()));
  v1::GenerateResponse response;
  grpc::Status status = Generate(Request("x", 5), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_NE(status.error_message().find("0 of 1 worker"), std::string::npos)
      << status.error_message();
  workers_.push_back(std::make_unique<FakeWorker>("w0", "tiny", kToyVocab));
  workers_[0]->FailLoading(absl::NotFoundError("no file of that model here"));
  ASSERT_TRUE(workers_[0]->Register(address_).ok());
  const absl::Time deadline = absl::Now() + kPatience;
  do {
    status = Generate(Request("x", 5), &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  } while (status.error_message().find("no file of that model here") ==
               std::string::npos &&
           absl::Now() < deadline);
  EXPECT_LT(absl::Now(), deadline);
  workers_[0]->FailLoading(absl::OkStatus());
  AwaitReady();
  EXPECT_TRUE(Generate(Request("x", 5), &response).ok());
}

TEST_F(CoordinatorTest, RefusesWhatItCannotServe) {
  Start();
  v1::GenerateResponse response;
  v1::GenerateRequest request = Request("x", 5);
  request.set_model("other");
  grpc::Status status = Generate(request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_NE(status.error_message().find("tiny"), std::string::npos);
}

TEST_F(CoordinatorTest, TokenizesThereAndBack) {
  Start();
  grpc::ClientContext context;
  v1::TokenizeRequest request;
  request.set_text("the caf\xc3\xa9");
  v1::TokenizeResponse tokens;
  ASSERT_TRUE(stub_->Tokenize(&context, request, &tokens).ok());
  EXPECT_EQ(tokens.token_ids_size(), tokens.pieces_size());
  v1::DetokenizeRequest back;
  *back.mutable_token_ids() = tokens.token_ids();
  grpc::ClientContext back_context;
  v1::DetokenizeResponse text;
  ASSERT_TRUE(stub_->Detokenize(&back_context, back, &text).ok());
  EXPECT_EQ(text.text(), request.text());
  back.add_token_ids(320);
  grpc::ClientContext bad_context;
  EXPECT_EQ(stub_->Detokenize(&bad_context, back, &text).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(CoordinatorTest, DescribesModelsAndWorkers) {
  Start(2);
  AddWorker("w9");
  grpc::ClientContext context;
  v1::ListModelsResponse models;
  ASSERT_TRUE(stub_->ListModels(&context, {}, &models).ok());
  ASSERT_EQ(models.models_size(), 1);
  const v1::Model& model = models.models(0);
  EXPECT_EQ(model.name(), "tiny");
  EXPECT_EQ(model.vocab_size(), 320);
  EXPECT_EQ(model.numerics_id(), "cpu-1/int8");
  ASSERT_EQ(model.pipelines_size(), 1);
  EXPECT_EQ(model.pipelines(0).stages_size(), 2);
  EXPECT_EQ(model.pipelines(0).kv_block_count(), 4096 / 16);
  EXPECT_EQ(model.pipelines(0).stages(1).load_progress(), 1);

  grpc::ClientContext workers_context;
  v1::ListWorkersResponse workers;
  ASSERT_TRUE(cluster_stub_->ListWorkers(&workers_context, {}, &workers).ok());
  ASSERT_EQ(workers.workers_size(), 3);
  EXPECT_EQ(workers.workers(1).worker_id(), "w1");
  EXPECT_EQ(workers.workers(1).stage_index(), 1);
  EXPECT_EQ(workers.workers(1).state(), v1::WORKER_STATE_READY);
  EXPECT_EQ(workers.workers(2).state(), v1::WORKER_STATE_IDLE);
}

// Any client may ask here: without certificates everyone is a worker.
TEST_F(CoordinatorTest, HandsOutItsModelByContent) {
  Start();
  const auto source = ModelSource::Open(model_path_);
  ASSERT_TRUE(source.ok()) << source.status();
  const auto content = OpenModelContent(**source, {});
  ASSERT_TRUE(content.ok()) << content.status();
  auto stub = v1::BlobService::NewStub(
      grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::GetManifestRequest request;
  request.set_content_id((*content)->content_id());
  v1::GetManifestResponse response;
  const grpc::Status status = stub->GetManifest(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.manifest(), (*content)->manifest_text());
}

TEST_F(CoordinatorTest, WithoutHashesItHandsOutNothing) {
  options_.content_hash = false;
  Start();
  auto stub = v1::BlobService::NewStub(
      grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::GetManifestResponse response;
  EXPECT_EQ(stub->GetManifest(&context, {}, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(CoordinatorTest, ShutdownEndsStreamsWithUnavailable) {
  Start();
  workers_[0]->Hold();
  grpc::ClientContext context;
  auto stream = OpenAdmitted(&context, Request("x", 100));
  coordinator_->Shutdown();
  EXPECT_EQ(ReadAll(stream.get()).status.error_code(),
            grpc::StatusCode::UNAVAILABLE);
  workers_[0]->Release();
}

TEST_F(CoordinatorTest, SenselessOptionsAreRefused) {
  const auto code_of =
      [this](const std::function<void(Coordinator::Options*)>& change) {
        Coordinator::Options options = options_;
        change(&options);
        return Coordinator::Create(options).status().code();
      };
  using Options = Coordinator::Options;
  const auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(code_of([](Options* o) { o->models.clear(); }), kInvalid);
  EXPECT_EQ(code_of([](Options* o) { o->models[0].head_mode = "fp8"; }),
            kInvalid);
  EXPECT_EQ(code_of([](Options* o) { o->models[0].n_stages = 3; }), kInvalid);
  EXPECT_EQ(code_of([](Options* o) { o->models[0].n_stages = -1; }), kInvalid);
  EXPECT_EQ(code_of([](Options* o) { o->models[0].layer_cuts = {0}; }),
            kInvalid);
  EXPECT_EQ(code_of([](Options* o) { o->models[0].kv_cache_tokens = -1; }),
            kInvalid);
  EXPECT_EQ(code_of([](Options* o) { o->max_sequences = 0; }), kInvalid);
  EXPECT_EQ(code_of([](Options* o) { o->lease = absl::ZeroDuration(); }),
            kInvalid);
  EXPECT_EQ(code_of([](Options* o) { o->models[0].path += ".not"; }),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(code_of([](Options* o) { o->listen = "0.0.0.0:0"; }),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace tern
