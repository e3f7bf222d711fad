// What a client sees of the scheduler, with real workers: who goes first, who
// waits, who is refused and what is shared. docs/scheduling.md says the rules.

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_replace.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/error.pb.h"
#include "proto/tern/v1/inference.grpc.pb.h"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/local_cluster.h"
#include "util/credentials.h"

namespace tern {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(120);

void SetDeadline(grpc::ClientContext* context,
                 absl::Duration timeout = kPatience) {
  context->set_deadline(absl::ToChronoTime(absl::Now() + timeout));
}

// A prompt of `n_prompt` tokens that begins like no other of another `kind`.
v1::GenerateRequest Request(int kind, int n_prompt, int n_output) {
  v1::GenerateRequest request;
  for (int i = 0; i < n_prompt; ++i) {
    request.mutable_token_ids()->add_ids(50 + (kind * 101 + i * 37) % 900);
  }
  request.mutable_sampling()->set_temperature(0.8f);
  request.mutable_sampling()->set_seed(kind);
  request.mutable_stopping()->set_max_output_tokens(n_output);
  request.mutable_stopping()->set_ignore_end_of_sequence(true);
  request.mutable_response_options()->set_return_token_ids(true);
  return request;
}

std::vector<int> Tokens(const v1::Candidate& candidate) {
  return {candidate.token_ids().begin(), candidate.token_ids().end()};
}

// A stream that was admitted. Ends with this object.
class Stream {
 public:
  Stream(v1::InferenceService::Stub& stub, const v1::GenerateRequest& request) {
    SetDeadline(&context_);
    *request_.mutable_request() = request;
    reader_ = stub.StreamGenerate(&context_, request_);
    v1::StreamGenerateResponse response;
    EXPECT_TRUE(reader_->Read(&response));
    EXPECT_TRUE(response.has_prompt_info());
  }
  ~Stream() {
    context_.TryCancel();
    v1::StreamGenerateResponse rest;
    while (!ended_ && reader_->Read(&rest)) {
    }
    if (!ended_) reader_->Finish();
  }

  // Reads a message; false at the end.
  bool Read() {
    v1::StreamGenerateResponse response;
    if (!reader_->Read(&response)) return false;
    for (const int id : response.delta().token_ids()) tokens_.push_back(id);
    return true;
  }

  // Reads until it has `n` tokens.
  void AwaitTokens(size_t n) {
    while (tokens_.size() < n) ASSERT_TRUE(Read());
  }

  // Reads to the end.
  grpc::Status Finish() {
    while (Read()) {
    }
    ended_ = true;
    return reader_->Finish();
  }

  const std::vector<int>& tokens() const { return tokens_; }

 private:
  grpc::ClientContext context_;
  v1::StreamGenerateRequest request_;
  std::unique_ptr<grpc::ClientReader<v1::StreamGenerateResponse>> reader_;
  std::vector<int> tokens_;
  bool ended_ = false;
};

// The order in which streams end, each read by a thread of its own.
class Finishes {
 public:
  ~Finishes() { Join(); }

  void Add(const std::string& name, Stream* stream) {
    threads_.emplace_back([this, name, stream] {
      const grpc::Status status = stream->Finish();
      EXPECT_TRUE(status.ok()) << name << ": " << status.error_message();
      absl::MutexLock lock(&mu_);
      names_.push_back(name);
    });
  }

  // Waits for all. The place of each.
  std::map<std::string, int> Join() ABSL_LOCKS_EXCLUDED(mu_) {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    absl::MutexLock lock(&mu_);
    std::map<std::string, int> places;
    for (const std::string& name : names_) {
      const int place = static_cast<int>(places.size());
      places[name] = place;
    }
    return places;
  }

 private:
  std::vector<std::thread> threads_;
  absl::Mutex mu_;
  std::vector<std::string> names_ ABSL_GUARDED_BY(mu_);
};

class SchedulingTest : public testing::Test {
 protected:
  void Start(const std::vector<std::string>& coordinator_flags,
             int n_workers = 1) {
    LocalCluster::Options options;
    options.workers = n_workers;
    options.coordinator_flags = coordinator_flags;
    options.worker_flags = {"--threads=1"};
    options.tls = tls_;
    auto started = LocalCluster::Start(options);
    ASSERT_TRUE(started.ok()) << started.status();
    cluster_ = *std::move(started);
    const absl::Time patience = absl::Now() + kPatience;
    while (NReady() < n_workers) ASSERT_LT(absl::Now(), patience);
  }

  v1::InferenceService::Stub& stub() { return cluster_->inference(); }

  v1::Model Model() {
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::GetModelResponse response;
    EXPECT_TRUE(stub().GetModel(&context, {}, &response).ok());
    return response.model();
  }
  int NReady() {
    int n = 0;
    const v1::Model model = Model();
    for (const v1::Pipeline& pipeline : model.pipelines()) {
      n += pipeline.state() == v1::PIPELINE_STATE_READY;
    }
    return n;
  }
  int BlocksInUse() { return Model().pipelines(0).kv_block_in_use_count(); }

  grpc::Status Generate(v1::InferenceService::Stub& stub,
                        const v1::GenerateRequest& request,
                        v1::GenerateResponse* response,
                        absl::Duration timeout = kPatience) {
    grpc::ClientContext context;
    SetDeadline(&context, timeout);
    return stub.Generate(&context, request, response);
  }
  v1::GenerateResponse MustGenerate(const v1::GenerateRequest& request) {
    v1::GenerateResponse response;
    const grpc::Status status = Generate(stub(), request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message() << cluster_->Logs();
    if (response.candidates().empty()) response.add_candidates();
    return response;
  }
  std::vector<int> Alone(const v1::GenerateRequest& request) {
    return Tokens(MustGenerate(request).candidates(0));
  }

  bool tls_ = false;
  std::unique_ptr<LocalCluster> cluster_;
};

TEST_F(SchedulingTest, ARequestJoinsWhileAnotherRuns) {
  Start({});
  const v1::GenerateRequest request = Request(1, 10, 480);
  const std::vector<int> alone = Alone(request);
  Stream running(stub(), request);
  running.AwaitTokens(3);
  EXPECT_EQ(Alone(Request(2, 10, 5)).size(), 5u);
  EXPECT_GT(BlocksInUse(), 0) << "it waited for the other's end";
  EXPECT_TRUE(running.Finish().ok());
  EXPECT_EQ(running.tokens(), alone);
}

TEST_F(SchedulingTest, AnswersGoOnWhileALongPromptComesInPieces) {
  Start({"--max_step_tokens=8"});
  Stream running(stub(), Request(1, 10, 480));
  running.AwaitTokens(3);
  std::atomic<int> n_read{0};
  std::thread reader([&] {
    while (running.Read()) ++n_read;
  });
  // Its 450 tokens take at least 56 steps, each with a row of the other.
  Stream arriving(stub(), Request(2, 450, 2));
  const int n_before = n_read;
  arriving.AwaitTokens(1);
  EXPECT_GE(n_read - n_before, 5) << "the prompt came in one piece";
  reader.join();
  EXPECT_TRUE(running.Finish().ok());
  EXPECT_EQ(running.tokens().size(), 480u);
}

TEST_F(SchedulingTest, AHigherPriorityTakesThePlaceAndTheOtherGoesOn) {
  Start({"--max_sequences=1"});
  v1::GenerateRequest low = Request(1, 10, 480);
  low.set_priority(-1);
  const std::vector<int> alone = Alone(low);
  Stream preempted(stub(), low);
  preempted.AwaitTokens(3);
  v1::GenerateRequest high = Request(2, 10, 20);
  high.set_priority(5);
  Stream urgent(stub(), high);
  Finishes finishes;
  finishes.Add("low", &preempted);
  finishes.Add("high", &urgent);
  auto place = finishes.Join();
  EXPECT_LT(place["high"], place["low"]);
  // Computed again from its token log.
  EXPECT_EQ(preempted.tokens(), alone);
}

TEST_F(SchedulingTest, WhatTheCacheCannotHoldGivesWayAndGoesOn) {
  // One of them fits it whole, and each of the others while it is short.
  Start({"--kv_cache_tokens=512", "--prefix_cache=false"});
  std::vector<v1::GenerateRequest> requests;
  std::vector<std::vector<int>> alone;
  for (int kind = 1; kind <= 5; ++kind) {
    requests.push_back(Request(kind, 20 + kind, 250));
    alone.push_back(Alone(requests.back()));
  }
  EXPECT_EQ(Model().pipelines(0).preemption_count(), 0);
  std::vector<std::unique_ptr<Stream>> streams;
  Finishes finishes;
  for (size_t i = 0; i < requests.size(); ++i) {
    streams.push_back(std::make_unique<Stream>(stub(), requests[i]));
    finishes.Add(std::to_string(i), streams.back().get());
  }
  finishes.Join();
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(streams[i]->tokens(), alone[i]) << "stream " << i;
  }
  EXPECT_GT(Model().pipelines(0).preemption_count(), 0);
  EXPECT_EQ(BlocksInUse(), 0);
}

TEST_F(SchedulingTest, OfThoseThatWaitTheHigherPriorityGoesFirst) {
  Start({"--max_sequences=1"});
  v1::GenerateRequest first = Request(1, 10, 400);
  first.set_priority(100);
  Stream running(stub(), first);
  running.AwaitTokens(1);
  Stream later(stub(), Request(2, 10, 60));
  v1::GenerateRequest urgent = Request(3, 10, 60);
  urgent.set_priority(1);
  Stream sooner(stub(), urgent);
  Finishes finishes;
  finishes.Add("running", &running);
  finishes.Add("later", &later);
  finishes.Add("sooner", &sooner);
  auto place = finishes.Join();
  EXPECT_LT(place["running"], place["sooner"]);
  EXPECT_LT(place["sooner"], place["later"]);
}

TEST_F(SchedulingTest, ADeadlineThatCannotBeMetIsRefusedAtOnce) {
  Start({"--max_sequences=1", "--max_queued_requests=1000"});
  MustGenerate(Request(1, 400, 2));  // So that steps have a known cost.
  std::vector<std::unique_ptr<Stream>> waiting;
  for (int i = 0; i < 200; ++i) {
    waiting.push_back(std::make_unique<Stream>(stub(), Request(2 + i, 450, 2)));
  }
  v1::GenerateResponse response;
  const grpc::Status status = Generate(stub(), Request(1000, 450, 2), &response,
                                       absl::Milliseconds(250));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  // The coordinator's words: the call's own end would have others.
  EXPECT_NE(status.error_message().find("is not to be expected before"),
            std::string::npos)
      << status.error_message();
}

TEST_F(SchedulingTest, PromptTokensThatWaitAreLimited) {
  Start({"--max_sequences=1", "--max_queued_tokens=100"});
  Stream running(stub(), Request(1, 10, 480));
  running.AwaitTokens(1);
  Stream waiting(stub(), Request(2, 90, 5));
  v1::GenerateResponse response;
  const grpc::Status status = Generate(stub(), Request(3, 90, 5), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_NE(status.error_message().find("limit is 100"), std::string::npos)
      << status.error_message();
  v1::StatusDetails details;
  v1::RetryInfo info;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  ASSERT_EQ(details.details_size(), 1);
  ASSERT_TRUE(info.ParseFromString(details.details(0).value()));
  EXPECT_GE(info.retry_delay().seconds(), 1);
}

// The caller is who its certificate names; the worker's stands in for another
// tenant's.
class TenantsTest : public SchedulingTest {
 protected:
  TenantsTest() { tls_ = true; }

  std::unique_ptr<v1::InferenceService::Stub> OtherTenant() {
    CredentialOptions options = cluster_->client_credentials();
    options.cert_file =
        absl::StrReplaceAll(options.cert_file, {{"client.pem", "worker.pem"}});
    options.key_file =
        absl::StrReplaceAll(options.key_file, {{"client.key", "worker.key"}});
    const auto credentials = Credentials::Create(options);
    EXPECT_TRUE(credentials.ok()) << credentials.status();
    const auto channel =
        (*credentials)->CreateChannel(cluster_->server(), kCoordinatorName);
    EXPECT_TRUE(channel.ok()) << channel.status();
    return v1::InferenceService::NewStub(*channel);
  }
};

TEST_F(TenantsTest, ATenantThatAsksLittleGoesBeforeTheQueueOfAnother) {
  Start({"--max_sequences=1"});
  const auto other = OtherTenant();
  std::vector<std::unique_ptr<Stream>> greedy;
  for (int i = 0; i < 6; ++i) {
    greedy.push_back(std::make_unique<Stream>(stub(), Request(i, 10, 150)));
  }
  Stream modest(*other, Request(100, 10, 20));
  Finishes finishes;
  for (int i = 0; i < 6; ++i) {
    finishes.Add(std::string(1, static_cast<char>('0' + i)), greedy[i].get());
  }
  finishes.Add("modest", &modest);
  auto place = finishes.Join();
  EXPECT_LE(place["modest"], 3) << "it waited for the other's whole queue";
}

TEST_F(TenantsTest, CachedPrefixesAreNotSharedBetweenTenants) {
  Start({});
  const auto other = OtherTenant();
  const v1::GenerateRequest request = Request(1, 100, 5);
  const v1::GenerateResponse mine = MustGenerate(request);
  EXPECT_EQ(mine.usage().cached_prompt_token_count(), 0);
  EXPECT_EQ(MustGenerate(request).usage().cached_prompt_token_count(), 96);
  v1::GenerateResponse theirs;
  ASSERT_TRUE(Generate(*other, request, &theirs).ok());
  EXPECT_EQ(theirs.usage().cached_prompt_token_count(), 0);
  EXPECT_EQ(Tokens(theirs.candidates(0)), Tokens(mine.candidates(0)));
}

TEST_F(SchedulingTest, ARequestGoesToThePipelineThatHasItsPrefix) {
  Start({}, /*n_workers=*/2);
  std::vector<v1::GenerateRequest> requests;
  for (int i = 0; i < 3; ++i) requests.push_back(Request(10 + i, 100, 3));
  // One pipeline is busy, so that the other gets them.
  {
    Stream busy(stub(), Request(1, 10, 480));
    busy.AwaitTokens(3);
    for (const auto& request : requests) {
      EXPECT_EQ(MustGenerate(request).usage().cached_prompt_token_count(), 0);
    }
    EXPECT_TRUE(busy.Finish().ok());
  }
  const v1::Model model = Model();
  ASSERT_EQ(model.pipelines_size(), 2);
  EXPECT_GT(model.pipelines(0).prefix_token_count(), 0);
  EXPECT_GT(model.pipelines(1).prefix_token_count(), 0);
  // Both are free. Whoever does not look goes to the first.
  for (const auto& request : requests) {
    EXPECT_EQ(MustGenerate(request).usage().cached_prompt_token_count(), 96);
  }
}

TEST_F(SchedulingTest, InteractiveRequestsGoBeforeABatch) {
  Start({"--max_sequences=1"});
  std::vector<v1::BatchGenerateRequest> prompts(4);
  for (int i = 0; i < 4; ++i) {
    prompts[i].set_index(i);
    *prompts[i].mutable_request() = Request(i, 10, 400);
    prompts[i].mutable_request()->set_priority(100);  // among batch prompts
  }
  grpc::ClientContext context;
  SetDeadline(&context);
  auto batch = stub().BatchGenerate(&context);
  for (const auto& prompt : prompts) ASSERT_TRUE(batch->Write(prompt));
  batch->WritesDone();
  const absl::Time patience = absl::Now() + kPatience;
  while (BlocksInUse() == 0) ASSERT_LT(absl::Now(), patience);
  absl::Time first_result;
  std::map<int64_t, std::vector<int>> results;
  std::thread reader([&] {
    v1::BatchGenerateResponse result;
    while (batch->Read(&result)) {
      if (results.empty()) first_result = absl::Now();
      ASSERT_TRUE(result.has_response()) << result.DebugString();
      results[result.index()] = Tokens(result.response().candidates(0));
    }
  });
  EXPECT_EQ(Alone(Request(100, 10, 5)).size(), 5u);
  const absl::Time answered = absl::Now();
  reader.join();
  EXPECT_TRUE(batch->Finish().ok());
  EXPECT_LT(answered, first_result);
  ASSERT_EQ(results.size(), 4u);
  for (const auto& prompt : prompts) {
    EXPECT_EQ(results[prompt.index()], Alone(prompt.request()));
  }
}

TEST_F(SchedulingTest, SeveralAnswersShareTheBlocksOfTheirPrompt) {
  Start({});
  v1::GenerateRequest request = Request(1, 320, 150);
  request.mutable_sampling()->set_sample_count(4);
  Stream stream(stub(), request);
  stream.AwaitTokens(4);
  // 20 blocks of 16 tokens, and 10 for each answer at most.
  const int n_blocks = BlocksInUse();
  EXPECT_GE(n_blocks, 20);
  EXPECT_LE(n_blocks, 20 + 4 * 10);
  EXPECT_TRUE(stream.Finish().ok());
  EXPECT_EQ(BlocksInUse(), 0);
}

}  // namespace
}  // namespace tern
