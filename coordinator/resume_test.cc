// Streams that break and are resumed, on a tiny model and toy workers, over
// real gRPC.

#include <stdlib.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "coordinator/coordinator.h"
#include "coordinator/journal.h"
#include "coordinator/journal_proto.h"
#include "coordinator/model_instance.h"
#include "coordinator/testing/fake_worker.h"
#include "coordinator/testing/toy_model.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/inference.grpc.pb.h"
#include "proto/tern/v1/inference.pb.h"
#include "tests/testing/tiny_model.h"

namespace tern {
namespace {

constexpr int kToyVocab = 128;  // single bytes of ASCII
constexpr absl::Duration kPatience = absl::Seconds(60);

using Stream = grpc::ClientReader<v1::StreamGenerateResponse>;

// What a caller has of an answer: all of its streams joined.
struct Transcript {
  struct Candidate {
    std::string text;
    std::vector<int32_t> ids;
    std::vector<float> logprobs;
    int n_tokens = 0;  // output_token_count
    v1::FinishReason finish_reason = v1::FINISH_REASON_UNSPECIFIED;
    std::string stop_string;
  };

  void Add(const v1::StreamGenerateResponse& message) {
    if (message.has_prompt_info()) info = message.prompt_info();
    if (message.has_usage()) usage = message.usage();
    for (const v1::TokenLogprob& token : message.prompt_logprobs()) {
      prompt_logprobs.push_back(token.logprob());
    }
    if (!message.has_delta()) return;
    const v1::Candidate& delta = message.delta();
    Candidate& candidate = candidates[delta.index()];
    candidate.text += delta.text();
    candidate.ids.insert(candidate.ids.end(), delta.token_ids().begin(),
                         delta.token_ids().end());
    for (const v1::TokenLogprob& token : delta.logprobs()) {
      candidate.logprobs.push_back(token.logprob());
    }
    EXPECT_GE(delta.output_token_count(), candidate.n_tokens);
    candidate.n_tokens = delta.output_token_count();
    if (delta.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
      EXPECT_EQ(candidate.finish_reason, v1::FINISH_REASON_UNSPECIFIED);
      candidate.finish_reason = delta.finish_reason();
      candidate.stop_string = delta.stop_string();
    }
  }

  v1::PromptInfo info;
  std::optional<v1::Usage> usage;
  std::vector<float> prompt_logprobs;
  std::map<int, Candidate> candidates;
};

void ExpectSame(const Transcript& a, const Transcript& b) {
  EXPECT_EQ(a.info.seed(), b.info.seed());
  EXPECT_EQ(a.info.prompt_token_count(), b.info.prompt_token_count());
  ASSERT_TRUE(a.usage.has_value() && b.usage.has_value());
  EXPECT_EQ(a.usage->output_token_count(), b.usage->output_token_count());
  EXPECT_EQ(a.prompt_logprobs, b.prompt_logprobs);
  ASSERT_EQ(a.candidates.size(), b.candidates.size());
  for (const auto& [index, candidate] : a.candidates) {
    const Transcript::Candidate& other = b.candidates.at(index);
    EXPECT_EQ(candidate.text, other.text) << index;
    EXPECT_EQ(candidate.ids, other.ids) << index;
    EXPECT_EQ(candidate.logprobs, other.logprobs) << index;
    EXPECT_EQ(candidate.finish_reason, other.finish_reason) << index;
    EXPECT_EQ(candidate.stop_string, other.stop_string) << index;
  }
}

// A stream that is read until something is there, and broken, or to its end.
struct Call {
  void Break() {
    context.TryCancel();
    v1::StreamGenerateResponse message;
    while (stream->Read(&message)) {
    }
    stream->Finish();
  }

  grpc::ClientContext context;
  std::unique_ptr<Stream> stream;
};

class ResumeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.listen = "127.0.0.1:0";
    options_.models.resize(1);
    options_.models[0].path = testing::WriteTinyModel({});
    options_.models[0].name = "tiny";
    options_.lease = absl::Hours(1);
    options_.models[0].kv_cache_tokens = 4096;
  }

  void TearDown() override {
    for (const auto& worker : workers_) worker->Release();
    coordinator_.reset();
    for (const auto& worker : workers_) {
      EXPECT_EQ(worker->broken_rule(), "");
      EXPECT_TRUE(worker->AwaitSequences(0));
    }
    std::remove(options_.models[0].path.c_str());
  }

  void StartCoordinator() {
    coordinator_.reset();
    auto coordinator = Coordinator::Create(options_);
    ASSERT_TRUE(coordinator.ok()) << coordinator.status();
    coordinator_ = *std::move(coordinator);
    address_ = absl::StrCat("127.0.0.1:", coordinator_->port());
    stub_ = v1::InferenceService::NewStub(
        grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()));
  }

  void AddWorker() {
    workers_.push_back(std::make_unique<FakeWorker>(
        absl::StrCat("w", workers_.size()), "tiny", kToyVocab));
    const absl::Status status = workers_.back()->Register(address_);
    ASSERT_TRUE(status.ok()) << status;
  }

  void Start() {
    StartCoordinator();
    AddWorker();
    AwaitReady();
  }

  v1::GetModelResponse GetModel() {
    grpc::ClientContext context;
    v1::GetModelResponse response;
    const grpc::Status status = stub_->GetModel(&context, {}, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  void Await(const std::function<bool(const v1::GetModelResponse&)>& is_so) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (!is_so(GetModel())) {
      ASSERT_LT(absl::Now(), deadline) << GetModel().DebugString();
    }
  }
  void AwaitReady() {
    Await([](const v1::GetModelResponse& r) {
      return r.model().pipelines(0).state() == v1::PIPELINE_STATE_READY;
    });
  }
  void AwaitNoBlocksInUse() {
    Await([](const v1::GetModelResponse& r) {
      return r.model().pipelines(0).kv_block_in_use_count() == 0;
    });
  }
  bool HasBlocksInUse() {
    return GetModel().model().pipelines(0).kv_block_in_use_count() > 0;
  }

  static v1::GenerateRequest Request(const std::string& id, int n_tokens) {
    v1::GenerateRequest request;
    request.set_request_id(id);
    request.set_text("To be, or not to be");
    request.mutable_sampling()->set_seed(11);
    request.mutable_stopping()->set_max_output_tokens(n_tokens);
    return request;
  }

  std::unique_ptr<Call> Open(const v1::GenerateRequest& request,
                             absl::Duration window = absl::Minutes(1)) {
    auto call = std::make_unique<Call>();
    v1::StreamGenerateRequest wrapped;
    *wrapped.mutable_request() = request;
    if (window > absl::ZeroDuration()) {
      wrapped.mutable_resume_window()->set_seconds(
          absl::ToInt64Seconds(window));
      wrapped.mutable_resume_window()->set_nanos(static_cast<int>(
          absl::ToInt64Nanoseconds(window % absl::Seconds(1))));
    }
    call->stream = stub_->StreamGenerate(&call->context, wrapped);
    return call;
  }

  std::unique_ptr<Call> Resume(const std::string& id,
                               const std::vector<int>& from) {
    auto call = std::make_unique<Call>();
    v1::ResumeGenerateRequest request;
    request.set_request_id(id);
    if (from.size() == 1) request.set_from_token(from[0]);
    if (from.size() > 1) {
      for (const int n : from) request.add_from_tokens(n);
    }
    call->stream = stub_->ResumeGenerate(&call->context, request);
    return call;
  }

  // Reads until `is_enough`, or to the end. True when it was enough.
  static bool ReadUntil(Call* call, Transcript* transcript,
                        const std::function<bool()>& is_enough) {
    v1::StreamGenerateResponse message;
    while (call->stream->Read(&message)) {
      if (transcript != nullptr) transcript->Add(message);
      if (is_enough()) return true;
    }
    return false;
  }
  static grpc::Status ReadAll(Call* call, Transcript* transcript) {
    ReadUntil(call, transcript, [] { return false; });
    return call->stream->Finish();
  }

  grpc::Status Abort(const std::string& request_id) {
    grpc::ClientContext context;
    v1::AbortRequest request;
    request.set_request_id(request_id);
    v1::AbortResponse response;
    return stub_->Abort(&context, request, &response);
  }

  Transcript Undisturbed(v1::GenerateRequest request) {
    request.set_request_id("undisturbed");
    Transcript transcript;
    const auto call = Open(request, absl::ZeroDuration());
    const grpc::Status status = ReadAll(call.get(), &transcript);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return transcript;
  }

  // One of everything that makes an answer more than tokens in a row and that
  // toy workers can do; tests/fault has the others.
  std::vector<v1::GenerateRequest> AllKinds() {
    std::vector<v1::GenerateRequest> kinds;
    kinds.push_back(Request("plain", 60));
    kinds.back().mutable_response_options()->set_return_token_ids(true);
    kinds.push_back(Request("several", 40));
    kinds.back().mutable_sampling()->set_sample_count(3);
    kinds.back().mutable_response_options()->set_return_token_ids(true);
    kinds.push_back(Request("echo", 30));
    kinds.back().mutable_response_options()->set_echo(true);
    // A stop string far into the answer, whose beginnings are held back.
    const std::string text = Undisturbed(kinds[0]).candidates.at(0).text;
    kinds.push_back(Request("stop", 60));
    kinds.back().mutable_stopping()->add_stop_strings(text.substr(40, 4));
    kinds.back().mutable_stopping()->add_stop_strings(text.substr(20, 5) + "?");
    kinds.push_back(Request("token", 60));
    kinds.back().mutable_stopping()->add_stop_token_ids(
        Undisturbed(kinds[0]).candidates.at(0).ids[35]);
    kinds.back().mutable_stopping()->set_min_output_tokens(20);
    return kinds;
  }

  Coordinator::Options options_;
  std::string address_;
  std::unique_ptr<v1::InferenceService::Stub> stub_;
  std::vector<std::unique_ptr<FakeWorker>> workers_;
  std::unique_ptr<Coordinator> coordinator_;
};

TEST_F(ResumeTest, AnyKindOfAnswerGoesOnFromAnyTokenOfItsFirstStream) {
  Start();
  for (const v1::GenerateRequest& request : AllKinds()) {
    SCOPED_TRACE(request.request_id());
    const Transcript whole = Undisturbed(request);
    // Every state that a caller of the first stream was in.
    std::vector<Transcript> states = {{}};
    Transcript transcript;
    const auto call = Open(request);
    v1::StreamGenerateResponse message;
    while (call->stream->Read(&message)) {
      transcript.Add(message);
      states.push_back(transcript);
    }
    ASSERT_TRUE(call->stream->Finish().ok());
    ExpectSame(transcript, whole);
    for (Transcript& state : states) {
      std::vector<int> from;
      bool has_any = false;
      const int n = std::max(1, request.sampling().sample_count());
      for (int i = 0; i < n; ++i) {
        from.push_back(state.candidates[i].n_tokens);
        has_any = has_any || from.back() > 0;
        // Told once more, as the cluster cannot know who has heard it.
        state.candidates[i].finish_reason = v1::FINISH_REASON_UNSPECIFIED;
      }
      if (!has_any) state.prompt_logprobs.clear();
      const auto resumed = Resume(request.request_id(), from);
      const grpc::Status status = ReadAll(resumed.get(), &state);
      EXPECT_TRUE(status.ok()) << status.error_message();
      ExpectSame(state, whole);
    }
    EXPECT_TRUE(Abort(request.request_id()).ok());
  }
  AwaitNoBlocksInUse();
}

TEST_F(ResumeTest, ABrokenStreamGoesOnWhereItWas) {
  Start();
  for (const v1::GenerateRequest& request : AllKinds()) {
    SCOPED_TRACE(request.request_id());
    const Transcript whole = Undisturbed(request);
    Transcript transcript;
    workers_[0]->Hold();
    std::unique_ptr<Call> call = Open(request);
    ReadUntil(call.get(), &transcript,
              [&] { return transcript.info.prompt_token_count() > 0; });
    workers_[0]->Release();
    // Broken again and again, after a piece each time.
    const int n = std::max(1, request.sampling().sample_count());
    const auto n_tokens = [&] {
      int sum = 0;
      for (const auto& [index, candidate] : transcript.candidates) {
        sum += candidate.n_tokens;
      }
      return sum;
    };
    int n_calls = 1;
    int n_before = 0;
    while (ReadUntil(call.get(), &transcript, [&] {
      return n_tokens() > n_before && !transcript.usage.has_value();
    })) {
      n_before = n_tokens();
      call->Break();
      std::vector<int> from;
      for (int i = 0; i < n; ++i) {
        from.push_back(transcript.candidates[i].n_tokens);
        transcript.candidates[i].finish_reason = v1::FINISH_REASON_UNSPECIFIED;
      }
      call = Resume(request.request_id(), from);
      ++n_calls;
    }
    const grpc::Status status = call->stream->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_GT(n_calls, 1);
    ExpectSame(transcript, whole);
    EXPECT_TRUE(Abort(request.request_id()).ok());
  }
  AwaitNoBlocksInUse();
}

TEST_F(ResumeTest, WithoutAWindowARequestEndsWithItsConnection) {
  Start();
  workers_[0]->Hold();
  const auto call = Open(Request("a", 100), absl::ZeroDuration());
  Transcript transcript;
  ReadUntil(call.get(), &transcript, [] { return true; });
  call->Break();
  AwaitNoBlocksInUse();
  workers_[0]->Release();
  const auto resumed = Resume("a", {0});
  EXPECT_EQ(ReadAll(resumed.get(), &transcript).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(ResumeTest, WhenTheWindowIsOverTheRequestIsDroppedAndItsBlocksAreFree) {
  Start();
  workers_[0]->Hold();
  const auto call = Open(Request("a", 100), absl::Milliseconds(300));
  Transcript transcript;
  ReadUntil(call.get(), &transcript, [] { return true; });
  EXPECT_TRUE(workers_[0]->AwaitAnySequence());
  EXPECT_TRUE(HasBlocksInUse());
  call->Break();
  AwaitNoBlocksInUse();
  Await([](const auto& r) { return r.journal().request_count() == 0; });
  workers_[0]->Release();
  EXPECT_TRUE(workers_[0]->AwaitSequences(0));
  const auto resumed = Resume("a", {0});
  EXPECT_EQ(ReadAll(resumed.get(), &transcript).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(ResumeTest, AnEndedAnswerIsKeptForItsWindowAndItsNameIsTaken) {
  Start();
  Transcript first;
  EXPECT_TRUE(
      ReadAll(Open(Request("a", 20), absl::Seconds(2)).get(), &first).ok());
  Transcript again, refused;
  EXPECT_TRUE(ReadAll(Resume("a", {0}).get(), &again).ok());
  ExpectSame(again, first);
  EXPECT_EQ(ReadAll(Open(Request("a", 20)).get(), &refused).error_code(),
            grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(
      ReadAll(Open(Request("a", 20), absl::ZeroDuration()).get(), &refused)
          .error_code(),
      grpc::StatusCode::ALREADY_EXISTS);
  grpc::ClientContext context;
  v1::GenerateResponse response;
  EXPECT_EQ(stub_->Generate(&context, Request("a", 20), &response).error_code(),
            grpc::StatusCode::ALREADY_EXISTS);
  Await([](const auto& r) { return r.journal().request_count() == 0; });
  EXPECT_TRUE(ReadAll(Open(Request("a", 20)).get(), &refused).ok());
}

TEST_F(ResumeTest, AbortEndsARequestThatNobodyReadsAndFreesItsName) {
  Start();
  workers_[0]->Hold();
  const auto call = Open(Request("a", 100));
  Transcript transcript;
  ReadUntil(call.get(), &transcript, [] { return true; });
  call->Break();
  EXPECT_TRUE(Abort("a").ok());
  EXPECT_EQ(Abort("a").error_code(), grpc::StatusCode::NOT_FOUND);
  AwaitNoBlocksInUse();
  EXPECT_EQ(ReadAll(Resume("a", {0}).get(), &transcript).error_code(),
            grpc::StatusCode::NOT_FOUND);
  workers_[0]->Release();
  EXPECT_TRUE(ReadAll(Open(Request("a", 5)).get(), &transcript).ok());
}

TEST_F(ResumeTest, AStopStringEndsARequestThatNobodyReads) {
  Start();
  const std::string text = Undisturbed(Request("", 60)).candidates.at(0).text;
  v1::GenerateRequest request = Request("a", 100'000);
  request.mutable_stopping()->set_max_output_tokens(90);
  request.mutable_stopping()->add_stop_strings(text.substr(40, 4));
  const Transcript whole = Undisturbed(request);
  workers_[0]->Hold();
  const auto call = Open(request);
  Transcript transcript;
  ReadUntil(call.get(), &transcript, [] { return true; });
  call->Break();
  workers_[0]->Release();
  AwaitNoBlocksInUse();
  transcript = {};
  EXPECT_TRUE(ReadAll(Resume("a", {0}).get(), &transcript).ok());
  ExpectSame(transcript, whole);
}

TEST_F(ResumeTest, WhoComesLastReads) {
  Start();
  const Transcript whole = Undisturbed(Request("a", 80));
  workers_[0]->Hold();
  Transcript first, second;
  const auto call = Open(Request("a", 80));
  ReadUntil(call.get(), &first, [] { return true; });
  const auto resumed = Resume("a", {0});
  ReadUntil(resumed.get(), &second, [] { return true; });
  const grpc::Status status = ReadAll(call.get(), &first);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_NE(status.error_message().find("taken request a over"),
            std::string::npos);
  workers_[0]->Release();
  EXPECT_TRUE(ReadAll(resumed.get(), &second).ok());
  ExpectSame(second, whole);
}

class RestartTest : public ResumeTest {
 protected:
  void SetUp() override {
    ResumeTest::SetUp();
    folder_ = absl::StrCat(::testing::TempDir(), "/restart-XXXXXX");
    ASSERT_NE(mkdtemp(&folder_[0]), nullptr);
    options_.journal_dir = folder_;
  }

  // Another coordinator on the same journal, with the workers there are.
  void Restart() {
    StartCoordinator();
    for (const auto& worker : workers_) {
      const absl::Status status = worker->Register(address_);
      ASSERT_TRUE(status.ok()) << status;
      worker->Release();
    }
  }

  // Reads a stream until it has some tokens, and stops the worker then.
  void ReadSome(Call* call, Transcript* transcript) {
    workers_[0]->Release();
    ReadUntil(call, transcript, [&] {
      return transcript->candidates.size() > 0 &&
             transcript->candidates[0].n_tokens > 2;
    });
    workers_[0]->Hold();
  }

  std::string folder_;
};

TEST_F(RestartTest, TheNextCoordinatorGoesOnWithTheVeryTokens) {
  Start();
  int n_unfinished = 0;
  for (const v1::GenerateRequest& request : AllKinds()) {
    SCOPED_TRACE(request.request_id());
    const Transcript whole = Undisturbed(request);
    Transcript transcript;
    const auto call = Open(request);
    ReadSome(call.get(), &transcript);
    Restart();
    const grpc::Status broken = ReadAll(call.get(), &transcript);
    if (!broken.ok()) ++n_unfinished;
    std::vector<int> from;
    const int n = std::max(1, request.sampling().sample_count());
    for (int i = 0; i < n; ++i) {
      from.push_back(transcript.candidates[i].n_tokens);
      transcript.candidates[i].finish_reason = v1::FINISH_REASON_UNSPECIFIED;
    }
    const auto resumed = Resume(request.request_id(), from);
    const grpc::Status status = ReadAll(resumed.get(), &transcript);
    EXPECT_TRUE(status.ok()) << status.error_message();
    ExpectSame(transcript, whole);
  }
  EXPECT_GT(n_unfinished, 0);
  EXPECT_EQ(GetModel().journal().state(), v1::JOURNAL_STATE_WRITING);
  EXPECT_EQ(GetModel().journal().request_count(),
            static_cast<int>(AllKinds().size()));
  // All of them once more: what had ended is kept, too.
  const std::vector<v1::GenerateRequest> kinds = AllKinds();
  Restart();
  AwaitReady();
  for (const v1::GenerateRequest& request : kinds) {
    Transcript transcript;
    EXPECT_TRUE(
        ReadAll(Resume(request.request_id(), {}).get(), &transcript).ok());
    ExpectSame(transcript, Undisturbed(request));
  }
  AwaitNoBlocksInUse();
}

TEST_F(RestartTest, TheCallersTokensMayBeAheadOfTheJournals) {
  Start();
  const Transcript whole = Undisturbed(Request("a", 80));
  workers_[0]->Hold();
  Transcript transcript;
  const auto call = Open(Request("a", 80));
  ReadUntil(call.get(), &transcript, [] { return true; });
  Restart();
  Transcript rest;
  EXPECT_TRUE(ReadAll(Resume("a", {50}).get(), &rest).ok());
  EXPECT_EQ(rest.candidates[0].text, whole.candidates.at(0).text.substr(50));
}

TEST_F(RestartTest, AnotherArithmeticOrModelFileEndsWhatWasBegun) {
  Start();
  workers_[0]->Hold();
  Transcript transcript;
  const auto call = Open(Request("a", 80));
  ReadSome(call.get(), &transcript);
  workers_[0]->Hold();
  const auto other = Open(Request("b", 80));
  ReadUntil(other.get(), &transcript, [] { return true; });
  options_.models[0].head_mode = "stored";
  Restart();
  grpc::Status status = ReadAll(Resume("b", {0}).get(), &transcript);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_NE(status.error_message().find("cpu-1/int8"), std::string::npos)
      << status.error_message();

  AwaitReady();
  const auto third = Open(Request("c", 80));
  ReadUntil(third.get(), &transcript, [] { return true; });
  std::remove(options_.models[0].path.c_str());
  testing::TinyModelOptions larger;
  larger.add_eot = true;
  options_.models[0].path = testing::WriteTinyModel(larger);
  Restart();
  status = ReadAll(Resume("c", {0}).get(), &transcript);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_NE(status.error_message().find("another file"), std::string::npos)
      << status.error_message();
}

TEST_F(RestartTest, WhoseWindowIsOverIsNotRestored) {
  Start();
  workers_[0]->Hold();
  Transcript transcript;
  const auto call = Open(Request("a", 80), absl::Milliseconds(1));
  ReadUntil(call.get(), &transcript, [] { return true; });
  Restart();
  EXPECT_EQ(ReadAll(Resume("a", {0}).get(), &transcript).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(RestartTest, AbortedRequestsDoNotComeBack) {
  Start();
  workers_[0]->Hold();
  Transcript transcript;
  const auto call = Open(Request("a", 80));
  ReadUntil(call.get(), &transcript, [] { return true; });
  EXPECT_TRUE(Abort("a").ok());
  Restart();
  EXPECT_EQ(ReadAll(Resume("a", {0}).get(), &transcript).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(RestartTest, EpochsGrowEvenWhenTheClockDoesNot) {
  constexpr int64_t kFarAhead = int64_t{1} << 52;
  {
    Journal::Options journal;
    journal.folder = folder_;
    JournalImage image;
    auto opened = Journal::Open(journal, &image);
    ASSERT_TRUE(opened.ok()) << opened.status();
    (*opened)->TellEpoch(kFarAhead);
  }
  Start();
  EXPECT_EQ(workers_[0]->stage().epoch(), kFarAhead + 1);
  Restart();
  AwaitReady();
  EXPECT_EQ(workers_[0]->stage().epoch(), kFarAhead + 2);
}

TEST_F(RestartTest, ADamagedJournalIsRefused) {
  Start();
  EXPECT_TRUE(ReadAll(Open(Request("a", 5)).get(), nullptr).ok());
  coordinator_.reset();
  const std::string path = folder_ + "/requests.journal";
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(10);
  file.put('x');
  file.close();
  EXPECT_EQ(Coordinator::Create(options_).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST_F(ResumeTest, SenselessRequestsAreRefused) {
  Start();
  const auto code_of = [&](std::unique_ptr<Call> call) {
    Transcript transcript;
    return ReadAll(call.get(), &transcript).error_code();
  };
  const auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
  EXPECT_EQ(code_of(Open(Request("a", 5), absl::Minutes(11))), kInvalid);
  EXPECT_EQ(code_of(Resume("none", {0})), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(code_of(Resume("", {0})), kInvalid);
  v1::GenerateRequest several = Request("several", 5);
  several.mutable_sampling()->set_sample_count(2);
  EXPECT_EQ(code_of(Open(Request("one", 5))), grpc::StatusCode::OK);
  EXPECT_EQ(code_of(Open(several)), grpc::StatusCode::OK);
  EXPECT_EQ(code_of(Resume("one", {-1})), kInvalid);
  EXPECT_EQ(code_of(Resume("one", {6})), kInvalid);
  EXPECT_EQ(code_of(Resume("one", {1, 1})), kInvalid);
  EXPECT_EQ(code_of(Resume("several", {1})), kInvalid);
  EXPECT_EQ(code_of(Resume("several", {1, 1, 1})), kInvalid);
  EXPECT_EQ(code_of(Resume("several", {1, 5})), grpc::StatusCode::OK);
  // A request that was refused has not taken its name.
  v1::GenerateRequest large = Request("large", 1);
  large.mutable_stopping()->set_max_output_tokens(0);
  EXPECT_EQ(code_of(Open(large)), kInvalid);
  EXPECT_EQ(code_of(Open(Request("large", 5))), grpc::StatusCode::OK);
}

}  // namespace
}  // namespace tern
