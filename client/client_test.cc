#include "client/client.h"

#include <atomic>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "client/fake_cluster.h"
#include "gtest/gtest.h"
#include "util/dev_certs.h"
#include "util/fake_clock.h"

namespace tern {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(30);

grpc::Status Error(grpc::StatusCode code) { return grpc::Status(code, "why"); }
grpc::Status Unavailable() { return Error(grpc::StatusCode::UNAVAILABLE); }

v1::GenerateRequest Prompt(const std::string& text) {
  v1::GenerateRequest request;
  request.set_text(text);
  return request;
}

// Waits until the caller has gone away.
grpc::Status WaitForCancellation(grpc::ServerContext* context) {
  while (!context->IsCancelled()) std::this_thread::yield();
  return grpc::Status::CANCELLED;
}

// A client of a fake cluster whose pauses take no time.
class ClientTest : public testing::Test {
 protected:
  ClientOptions Options() {
    ClientOptions options;
    options.server = fake_.address();
    options.clock = &clock_;
    options.random = [] { return 0.0; };
    options.sleep = [this](absl::Duration pause, const Cancellation*) {
      pauses_.push_back(pause);
      clock_.Advance(pause);
    };
    return options;
  }

  std::unique_ptr<Client> MustCreate(ClientOptions options) {
    auto client = Client::Create(std::move(options));
    EXPECT_TRUE(client.ok()) << client.status();
    return std::move(client).value();
  }

  // The text that StreamGenerate() passed on; status in *status.
  std::string Stream(Client* client, v1::GenerateRequest request,
                     absl::Status* status, const CallOptions& options = {}) {
    std::string text;
    *status = client->StreamGenerate(
        std::move(request),
        [&](const v1::StreamGenerateResponse& message) {
          text += message.delta().text();
          return true;
        },
        options);
    return text;
  }

  FakeClock clock_;
  FakeCluster fake_;
  std::vector<absl::Duration> pauses_;
};

TEST_F(ClientTest, StreamsAnAnswerPieceByPiece) {
  fake_.on_stream = [](auto* context, auto& request, auto* writer) {
    return StreamPieces(request, {"to ", "be ", "or"}, writer);
  };
  auto client = MustCreate(Options());
  std::vector<std::string> pieces;
  v1::Usage usage;
  std::string id;
  const absl::Status status = client->StreamGenerate(
      Prompt("?"), [&](const v1::StreamGenerateResponse& message) {
        if (message.has_prompt_info()) id = message.prompt_info().request_id();
        if (!message.delta().text().empty()) {
          pieces.push_back(message.delta().text());
        }
        if (message.has_usage()) usage = message.usage();
        return true;
      });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(pieces, (std::vector<std::string>{"to ", "be ", "or"}));
  EXPECT_EQ(usage.output_token_count(), 3);
  EXPECT_FALSE(id.empty());
  EXPECT_EQ(fake_.requests()[0].text(), "?");
}

TEST_F(ClientTest, RetriesUnavailableWithGrowingPausesAndNewIds) {
  std::atomic<int> calls{0};
  fake_.on_generate = [&](auto* context, auto& request, auto* response) {
    if (++calls < 4) return Unavailable();
    response->add_candidates()->set_text("at last");
    return grpc::Status::OK;
  };
  auto client = MustCreate(Options());
  const auto response = client->Generate(Prompt("?"));
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->candidates(0).text(), "at last");
  EXPECT_EQ(pauses_, (std::vector<absl::Duration>{absl::Milliseconds(100),
                                                  absl::Milliseconds(200),
                                                  absl::Milliseconds(400)}));
  const auto requests = fake_.requests();
  ASSERT_EQ(requests.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(
        absl::EndsWith(requests[i].request_id(), absl::StrCat("-", i + 1)));
  }
  EXPECT_LE(requests[3].request_id().size(), 128u);
}

TEST_F(ClientTest, PausesAreShortenedAtRandomAndBounded) {
  fake_.on_generate = [](auto...) { return Unavailable(); };
  ClientOptions options = Options();
  options.random = [] { return 0.5; };
  options.max_attempts = 7;
  options.backoff_max = absl::Milliseconds(800);
  auto client = MustCreate(options);
  const absl::Status status = client->Generate(Prompt("?")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(absl::StrContains(status.message(), "after 7 attempts"));
  EXPECT_EQ(pauses_, (std::vector<absl::Duration>{
                         absl::Milliseconds(75), absl::Milliseconds(150),
                         absl::Milliseconds(300), absl::Milliseconds(600),
                         absl::Milliseconds(600), absl::Milliseconds(600)}));
}

TEST_F(ClientTest, KeepsTheCallersRequestId) {
  fake_.on_generate = [](auto...) { return Unavailable(); };
  auto client = MustCreate(Options());
  v1::GenerateRequest request = Prompt("?");
  request.set_request_id("mine");
  EXPECT_FALSE(client->Generate(request).ok());
  ASSERT_EQ(fake_.requests().size(), 4u);
  for (const auto& seen : fake_.requests()) {
    EXPECT_EQ(seen.request_id(), "mine");
  }
}

TEST_F(ClientTest, RetriesNothingElse) {
  std::atomic<grpc::StatusCode> answer{grpc::StatusCode::OK};
  fake_.on_generate = [&](auto...) { return Error(answer); };
  auto client = MustCreate(Options());
  for (const grpc::StatusCode code :
       {grpc::StatusCode::RESOURCE_EXHAUSTED, grpc::StatusCode::ABORTED,
        grpc::StatusCode::INTERNAL, grpc::StatusCode::INVALID_ARGUMENT,
        grpc::StatusCode::ALREADY_EXISTS}) {
    answer = code;
    const absl::Status status = client->Generate(Prompt("?")).status();
    EXPECT_EQ(static_cast<int>(status.code()), static_cast<int>(code));
    EXPECT_EQ(status.message(), "why");
  }
  EXPECT_TRUE(pauses_.empty());
}

TEST_F(ClientTest, RetriesAStreamThatBrokeBeforeItsFirstToken) {
  std::atomic<int> calls{0};
  fake_.on_stream = [&](auto* context, auto& request, auto* writer) {
    if (++calls == 1) {
      v1::StreamGenerateResponse message;
      message.mutable_prompt_info()->set_request_id(request.request_id());
      writer->Write(message);
      return Unavailable();
    }
    return StreamPieces(request, {"whole"}, writer);
  };
  auto client = MustCreate(Options());
  absl::Status status;
  EXPECT_EQ(Stream(client.get(), Prompt("?"), &status), "whole");
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_NE(fake_.requests()[0].request_id(), fake_.requests()[1].request_id());
}

TEST_F(ClientTest, NeverRepeatsAStreamThatHasBegun) {
  fake_.on_stream = [&](auto* context, auto& request, auto* writer) {
    v1::StreamGenerateResponse message;
    message.mutable_delta()->set_text("half an ");
    writer->Write(message);
    return Unavailable();
  };
  auto client = MustCreate(Options());
  absl::Status status;
  EXPECT_EQ(Stream(client.get(), Prompt("?"), &status), "half an ");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(fake_.requests().size(), 1u);
}

// Pieces of one token each, from the one after `from` on.
grpc::Status StreamFrom(const std::vector<std::string>& pieces, int from,
                        FakeCluster::StreamWriter* writer) {
  v1::StreamGenerateResponse message;
  message.mutable_prompt_info()->set_seed(7);
  writer->Write(message);
  for (int i = from; i < static_cast<int>(pieces.size()); ++i) {
    message.Clear();
    message.mutable_delta()->set_text(pieces[i]);
    message.mutable_delta()->set_output_token_count(i + 1);
    writer->Write(message);
  }
  return grpc::Status::OK;
}

void WriteEnd(FakeCluster::StreamWriter* writer) {
  v1::StreamGenerateResponse message;
  message.mutable_delta()->set_finish_reason(v1::FINISH_REASON_LENGTH);
  message.mutable_delta()->set_output_token_count(4);
  message.mutable_usage()->set_output_token_count(4);
  writer->Write(message);
}

class ResumeTest : public ClientTest {
 protected:
  ResumeTest() { call_.resume_window = absl::Seconds(20); }

  const std::vector<std::string> kPieces = {"to ", "be ", "or ", "not"};
  CallOptions call_;
};

TEST_F(ResumeTest, AStreamThatBreaksAgainAndAgainIsWhole) {
  fake_.on_stream = [&](auto*, auto& request, auto* writer) {
    StreamFrom({"to "}, 0, writer);
    return Unavailable();
  };
  std::vector<int> from;
  fake_.on_resume = [&](auto*, auto& request, auto* writer) {
    EXPECT_EQ(request.request_id(), fake_.requests()[0].request_id());
    from.push_back(request.from_token());
    // Ten times nothing but a greeting, then a piece each time.
    if (from.size() < 10) {
      StreamFrom({}, 0, writer);
      return Unavailable();
    }
    const int n = request.from_token();
    StreamFrom(
        std::vector<std::string>(kPieces.begin(), kPieces.begin() + n + 1), n,
        writer);
    if (n < 3) return Unavailable();
    WriteEnd(writer);
    return grpc::Status::OK;
  };
  auto client = MustCreate(Options());
  absl::Status status;
  EXPECT_EQ(Stream(client.get(), Prompt("?"), &status, call_), "to be or not");
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(from.size(), 12u);
  EXPECT_EQ(from.back(), 3);
  EXPECT_EQ(fake_.requests().size(), 1u);
}

TEST_F(ResumeTest, AnAnswerThatIsWholeNeedsNoGoodbye) {
  fake_.on_stream = [&](auto*, auto& request, auto* writer) {
    StreamFrom(kPieces, 0, writer);
    WriteEnd(writer);
    return Unavailable();
  };
  auto client = MustCreate(Options());
  absl::Status status;
  EXPECT_EQ(Stream(client.get(), Prompt("?"), &status, call_), "to be or not");
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(ResumeTest, GivesUpWhenTheWindowIsOver) {
  fake_.on_stream = [&](auto*, auto& request, auto* writer) {
    StreamFrom({"to "}, 0, writer);
    return Unavailable();
  };
  fake_.on_resume = [](auto...) { return Unavailable(); };
  auto client = MustCreate(Options());
  const absl::Time begin = clock_.Now();
  absl::Status status;
  EXPECT_EQ(Stream(client.get(), Prompt("?"), &status, call_), "to ");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_LE(clock_.Now() - begin, call_.resume_window);
  EXPECT_GT(clock_.Now() - begin, call_.resume_window / 2);
}

TEST_F(ResumeTest, ARequestThatWasLostUnseenIsAskedForAgain) {
  std::atomic<int> n_calls{0};
  fake_.on_stream = [&](auto*, auto& request, auto* writer) {
    if (++n_calls == 1) {
      StreamFrom({}, 0, writer);
      return Unavailable();
    }
    StreamFrom(kPieces, 0, writer);
    WriteEnd(writer);
    return grpc::Status::OK;
  };
  fake_.on_resume = [](auto...) { return Error(grpc::StatusCode::NOT_FOUND); };
  auto client = MustCreate(Options());
  absl::Status status;
  EXPECT_EQ(Stream(client.get(), Prompt("?"), &status, call_), "to be or not");
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(n_calls, 2);
}

TEST_F(ResumeTest, ARequestThatCameThroughUnheardIsResumed) {
  std::atomic<int> n_calls{0};
  fake_.on_stream = [&](auto...) {
    return ++n_calls == 1 ? Unavailable()
                          : Error(grpc::StatusCode::ALREADY_EXISTS);
  };
  fake_.on_resume = [&](auto*, auto& request, auto* writer) {
    StreamFrom(kPieces, 0, writer);
    WriteEnd(writer);
    return grpc::Status::OK;
  };
  auto client = MustCreate(Options());
  absl::Status status;
  EXPECT_EQ(Stream(client.get(), Prompt("?"), &status, call_), "to be or not");
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(ResumeTest, SaysWhatACoordinatorWithoutTheRequestMeans) {
  fake_.on_stream = [&](auto*, auto& request, auto* writer) {
    StreamFrom({"to "}, 0, writer);
    return Unavailable();
  };
  fake_.on_resume = [](auto...) { return Error(grpc::StatusCode::NOT_FOUND); };
  auto client = MustCreate(Options());
  absl::Status status;
  EXPECT_EQ(Stream(client.get(), Prompt("?"), &status, call_), "to ");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(absl::StrContains(status.message(), "cannot be resumed"));
}

TEST_F(ResumeTest, ARequestThatSomebodyAbortedIsNotAskedForAgain) {
  fake_.on_stream = [&](auto*, auto& request, auto* writer) {
    StreamFrom({}, 0, writer);
    return Error(grpc::StatusCode::CANCELLED);
  };
  fake_.on_resume = [](auto...) { return Error(grpc::StatusCode::NOT_FOUND); };
  auto client = MustCreate(Options());
  absl::Status status;
  EXPECT_EQ(Stream(client.get(), Prompt("?"), &status, call_), "");
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(fake_.requests().size(), 1u);
}

TEST_F(ResumeTest, ACancelledStreamIsAborted) {
  fake_.on_stream = [&](auto*, auto& request, auto* writer) {
    return StreamFrom(kPieces, 0, writer);
  };
  absl::Mutex mu;
  std::vector<std::string> aborted;
  fake_.on_abort = [&](const v1::AbortRequest& request, auto*) {
    absl::MutexLock lock(&mu);
    aborted.push_back(request.request_id());
    return grpc::Status::OK;
  };
  auto client = MustCreate(Options());
  EXPECT_EQ(client
                ->StreamGenerate(
                    Prompt("?"), [](const auto&) { return false; }, call_)
                .code(),
            absl::StatusCode::kCancelled);
  absl::MutexLock lock(&mu);
  EXPECT_EQ(aborted,
            std::vector<std::string>{fake_.requests()[0].request_id()});
}

TEST_F(ResumeTest, OfSeveralCandidatesEachGoesOnAndEndsOnce) {
  const auto write = [](FakeCluster::StreamWriter* writer, int index,
                        const std::string& text, int count, bool ends,
                        bool is_last = false) {
    v1::StreamGenerateResponse message;
    message.mutable_delta()->set_index(index);
    message.mutable_delta()->set_text(text);
    message.mutable_delta()->set_output_token_count(count);
    if (ends) {
      message.mutable_delta()->set_finish_reason(v1::FINISH_REASON_STOP);
    }
    if (is_last) message.mutable_usage()->set_output_token_count(5);
    writer->Write(message);
  };
  fake_.on_stream = [&](auto*, auto& request, auto* writer) {
    v1::StreamGenerateResponse message;
    message.mutable_prompt_info()->set_seed(7);
    writer->Write(message);
    message.Clear();
    message.add_prompt_logprobs()->set_logprob(-1);
    writer->Write(message);
    write(writer, 1, "b", 2, true);
    write(writer, 0, "a", 1, false);
    return Unavailable();
  };
  fake_.on_resume = [&](auto*, auto& request, auto* writer) {
    EXPECT_EQ(request.from_tokens_size(), 2);
    EXPECT_EQ(request.from_tokens(0), 1);
    EXPECT_EQ(request.from_tokens(1), 2);
    EXPECT_EQ(request.from_token(), 0);
    v1::StreamGenerateResponse message;
    message.mutable_prompt_info()->set_seed(7);
    writer->Write(message);
    message.Clear();
    message.add_prompt_logprobs()->set_logprob(-1);
    message.add_prompt_logprobs()->set_logprob(-2);
    writer->Write(message);
    write(writer, 0, "A", 3, true);
    write(writer, 1, "", 2, true, true);
    return grpc::Status::OK;
  };
  auto client = MustCreate(Options());
  v1::GenerateRequest request = Prompt("?");
  request.mutable_sampling()->set_sample_count(2);
  std::string text[2];
  int n_ends[2] = {0, 0};
  int n_infos = 0, n_usages = 0;
  std::vector<float> logprobs;
  const absl::Status status = client->StreamGenerate(
      request,
      [&](const v1::StreamGenerateResponse& message) {
        n_infos += message.has_prompt_info();
        n_usages += message.has_usage();
        for (const auto& one : message.prompt_logprobs()) {
          logprobs.push_back(one.logprob());
        }
        if (!message.has_delta()) return true;
        const int index = message.delta().index();
        text[index] += message.delta().text();
        n_ends[index] +=
            message.delta().finish_reason() != v1::FINISH_REASON_UNSPECIFIED;
        return true;
      },
      call_);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(text[0], "aA");
  EXPECT_EQ(text[1], "b");
  EXPECT_EQ(n_ends[0], 1);
  EXPECT_EQ(n_ends[1], 1);
  EXPECT_EQ(n_infos, 1);
  EXPECT_EQ(n_usages, 1);
  EXPECT_EQ(logprobs, (std::vector<float>{-1, -2}));
}

TEST_F(ClientTest, OfSeveralServersTheOneThatAnswersIsFound) {
  fake_.on_generate = [](auto*, auto&, v1::GenerateResponse* response) {
    response->add_candidates()->set_text("here");
    return grpc::Status::OK;
  };
  FakeCluster other;
  other.on_generate = [](auto...) { return Unavailable(); };
  ClientOptions options = Options();
  options.server = absl::StrCat(other.address(), ", ", fake_.address());
  options.max_attempts = 1;
  auto client = MustCreate(options);
  for (int i = 0; i < 2; ++i) {
    const auto response = client->Generate(Prompt("?"));
    ASSERT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->candidates(0).text(), "here");
  }
  // Once found it is stayed with.
  EXPECT_EQ(other.requests().size(), 1u);
  EXPECT_EQ(fake_.requests().size(), 2u);
}

TEST_F(ClientTest, WhatWasThoughtOfThePromptIsABeginning) {
  fake_.on_stream = [&](auto* context, auto& request, auto* writer) {
    v1::StreamGenerateResponse message;
    message.add_prompt_logprobs()->set_logprob(-1);
    writer->Write(message);
    return Unavailable();
  };
  auto client = MustCreate(Options());
  absl::Status status;
  EXPECT_EQ(Stream(client.get(), Prompt("?"), &status), "");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(fake_.requests().size(), 1u);
}

TEST_F(ClientTest, DoesNotStartAPauseThatOutlastsTheDeadline) {
  fake_.on_generate = [](auto...) { return Unavailable(); };
  ClientOptions options = Options();
  options.max_attempts = 100;
  options.backoff_first = absl::Seconds(20);
  options.backoff_max = absl::Seconds(40);
  auto client = MustCreate(options);
  CallOptions call;
  call.deadline = absl::Seconds(50);
  EXPECT_EQ(client->Generate(Prompt("?"), call).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(pauses_, (std::vector<absl::Duration>{absl::Seconds(20)}));
}

TEST_F(ClientTest, DeadlinesReachTheCluster) {
  fake_.on_generate = [](auto* context, auto& request, auto* response) {
    return WaitForCancellation(context);
  };
  ClientOptions options = Options();
  options.default_deadline = absl::Milliseconds(50);
  auto client = MustCreate(options);
  EXPECT_EQ(client->Generate(Prompt("?")).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(fake_.requests().size(), 1u);
}

TEST_F(ClientTest, CancellationEndsACallInProgressAndLaterOnes) {
  fake_.on_stream = [](auto* context, auto& request, auto* writer) {
    return WaitForCancellation(context);
  };
  auto client = MustCreate(Options());
  Cancellation cancellation;
  CallOptions call;
  call.cancellation = &cancellation;
  absl::Status status;
  std::thread caller([&] { Stream(client.get(), Prompt("?"), &status, call); });
  EXPECT_TRUE(fake_.WaitForCalls(1, kPatience));
  cancellation.Cancel();
  caller.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(client->Generate(Prompt("?"), call).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(fake_.requests().size(), 1u);
}

TEST_F(ClientTest, CancellationEndsAPause) {
  fake_.on_generate = [](auto...) { return Unavailable(); };
  ClientOptions options = Options();
  options.sleep = nullptr;  // The real one.
  options.clock = nullptr;
  options.backoff_first = options.backoff_max = absl::Hours(1);
  auto client = MustCreate(options);
  Cancellation cancellation;
  CallOptions call;
  call.cancellation = &cancellation;
  std::thread canceller([&] {
    fake_.WaitForCalls(1, kPatience);
    cancellation.Cancel();
  });
  EXPECT_EQ(client->Generate(Prompt("?"), call).status().code(),
            absl::StatusCode::kCancelled);
  canceller.join();
}

TEST_F(ClientTest, ACallbackCanEndItsStream) {
  fake_.on_stream = [](auto* context, auto& request, auto* writer) {
    v1::StreamGenerateResponse message;
    message.mutable_delta()->set_text("x");
    writer->Write(message);
    return WaitForCancellation(context);
  };
  auto client = MustCreate(Options());
  EXPECT_EQ(
      client->StreamGenerate(Prompt("?"), [](const auto&) { return false; })
          .code(),
      absl::StatusCode::kCancelled);
}

// Answers each prompt of a batch with its own text, `limit` of them at most.
grpc::Status Echo(FakeCluster::BatchStream* stream, int limit = 1 << 30) {
  v1::BatchGenerateRequest request;
  int n = 0;
  while (n < limit && stream->Read(&request)) {
    v1::BatchGenerateResponse response;
    response.set_index(request.index());
    response.mutable_response()->add_candidates()->set_text(
        request.request().text());
    stream->Write(response);
    ++n;
  }
  return grpc::Status::OK;
}

// Gives prompts 0 to count-1 whose text is their number.
auto Numbers(int count) {
  auto next = std::make_shared<int>(0);
  return [count, next](v1::BatchGenerateRequest* request) {
    if (*next == count) return false;
    request->set_index(*next);
    *request->mutable_request() = Prompt(absl::StrCat(*next));
    ++*next;
    return true;
  };
}

TEST_F(ClientTest, ABatchReturnsEveryResultOnce) {
  fake_.on_batch = [](auto* context, auto* stream) { return Echo(stream); };
  auto client = MustCreate(Options());
  std::vector<int> seen(500, 0);
  const absl::Status status =
      client->BatchGenerate(Numbers(500), [&](const auto& result) {
        EXPECT_EQ(result.response().candidates(0).text(),
                  absl::StrCat(result.index()));
        ++seen[result.index()];
        return true;
      });
  EXPECT_TRUE(status.ok()) << status;
  for (const int count : seen) EXPECT_EQ(count, 1);
}

// The other side could not read it, and would not know what to say.
TEST_F(ClientTest, TextThatIsNotUtf8IsNotSent) {
  fake_.on_batch = [](auto* context, auto* stream) { return Echo(stream); };
  auto client = MustCreate(Options());
  const auto expect_refused = [](const absl::Status& status,
                                 const std::string& field) {
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), field)) << status;
  };
  expect_refused(client->Generate(Prompt("a\xff")).status(), "text");
  expect_refused(
      client->StreamGenerate(Prompt("a\xff"), [](const auto&) { return true; }),
      "text");
  v1::TokenizeRequest tokenize;
  tokenize.set_text("\xff");
  expect_refused(client->Tokenize(tokenize).status(), "text");
  int n = 0;
  expect_refused(client->BatchGenerate(
                     [&n](v1::BatchGenerateRequest* request) {
                       request->set_index(n);
                       *request->mutable_request() =
                           Prompt(n == 3 ? "\xff" : "fine");
                       return n++ < 10;
                     },
                     [](const auto&) { return true; }),
                 "request.text");
  EXPECT_TRUE(fake_.requests().empty());
  EXPECT_TRUE(pauses_.empty());
}

TEST_F(ClientTest, ABrokenBatchGoesOnWithWhatHasNoResult) {
  fake_.on_batch = [](auto* context, auto* stream) {
    v1::BatchGenerateRequest request;
    Echo(stream, 2);
    return stream->Read(&request) ? Unavailable() : grpc::Status::OK;
  };
  auto client = MustCreate(Options());
  std::vector<int> seen(41, 0);
  const absl::Status status =
      client->BatchGenerate(Numbers(41), [&](const auto& result) {
        ++seen[result.index()];
        return true;
      });
  EXPECT_TRUE(status.ok()) << status;
  for (const int count : seen) EXPECT_EQ(count, 1);
  // Each attempt brought results, so that none used the attempts up.
  EXPECT_EQ(pauses_.size(), 20u);
}

TEST_F(ClientTest, ABatchThatGetsNowhereGivesUp) {
  fake_.on_batch = [](auto...) { return Unavailable(); };
  auto client = MustCreate(Options());
  EXPECT_EQ(client->BatchGenerate(Numbers(3), [](const auto&) { return true; })
                .code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(pauses_.size(), 3u);
}

TEST_F(ClientTest, ABatchWithoutAllItsResultsIsAnError) {
  fake_.on_batch = [](auto* context, auto* stream) {
    v1::BatchGenerateRequest request;
    Echo(stream, 1);
    while (stream->Read(&request)) continue;
    return grpc::Status::OK;
  };
  auto client = MustCreate(Options());
  const absl::Status status =
      client->BatchGenerate(Numbers(3), [](const auto&) { return true; });
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(absl::StrContains(status.message(), "2 prompts"));
}

v1::BatchGenerateResponse ErrorResult(int64_t index, grpc::StatusCode code) {
  v1::BatchGenerateResponse response;
  response.set_index(index);
  response.mutable_error()->set_code(code);
  response.mutable_error()->set_message("why");
  return response;
}

// Prompt 0 always finds no room; `on_result` would be called for it never.
TEST_F(ClientTest, APromptThatFoundNoRoomIsSentAgainAfterThoseInProgress) {
  std::atomic<int> n_calls{0};
  std::atomic<int> n_read{0};
  fake_.on_batch = [&](auto* context, auto* stream) {
    v1::BatchGenerateRequest request;
    const bool refuses = ++n_calls < 3;
    EXPECT_TRUE(stream->Read(&request));
    EXPECT_EQ(request.request().text(), "0");
    // Numbered anew in each call, without gaps.
    EXPECT_EQ(request.index(), 0);
    v1::BatchGenerateResponse refusal =
        ErrorResult(0, n_calls == 1 ? grpc::StatusCode::RESOURCE_EXHAUSTED
                                    : grpc::StatusCode::UNAVAILABLE);
    if (n_calls == 1) refusal.mutable_error()->mutable_retry_delay();
    if (refuses) stream->Write(refusal);
    int64_t number = 0;
    v1::BatchGenerateResponse response;
    response.mutable_response()->add_candidates()->set_text(
        request.request().text());
    if (!refuses) stream->Write(response);
    while (stream->Read(&request)) {
      ++n_read;
      EXPECT_EQ(request.index(), ++number);
      response.set_index(request.index());
      response.mutable_response()->mutable_candidates(0)->set_text(
          request.request().text());
      stream->Write(response);
    }
    return grpc::Status::OK;
  };
  auto client = MustCreate(Options());
  std::vector<int> seen(5000, 0);
  std::vector<absl::Status> retries;
  CallOptions options;
  options.on_retry = [&](const absl::Status& status, absl::Duration) {
    retries.push_back(status);
  };
  int next = 0;
  const absl::Status status = client->BatchGenerate(
      [&](v1::BatchGenerateRequest* request) {
        // The caller's own numbers may be anything.
        request->set_index(7 * next);
        *request->mutable_request() = Prompt(absl::StrCat(next));
        return next++ < 5000;
      },
      [&](const auto& result) {
        EXPECT_FALSE(result.has_error());
        const int number = static_cast<int>(result.index() / 7);
        EXPECT_EQ(result.response().candidates(0).text(), absl::StrCat(number));
        ++seen[number];
        return true;
      },
      options);
  EXPECT_TRUE(status.ok()) << status;
  for (const int count : seen) EXPECT_EQ(count, 1);
  EXPECT_EQ(n_calls, 3);
  EXPECT_EQ(n_read, 4999) << "a prompt with a result was sent again";
  ASSERT_EQ(retries.size(), 2u);
  EXPECT_EQ(retries[0].code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(retries[1].code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClientTest, AClusterThatAnswersNoPromptIsNotSentTheWholeBatch) {
  fake_.on_batch = [](auto* context, auto* stream) {
    v1::BatchGenerateRequest request;
    while (stream->Read(&request)) {
      stream->Write(
          ErrorResult(request.index(), grpc::StatusCode::UNAVAILABLE));
    }
    return grpc::Status::OK;
  };
  auto client = MustCreate(Options());
  std::atomic<int> n_taken{0};
  const absl::Status status = client->BatchGenerate(
      [&](v1::BatchGenerateRequest* request) {
        request->set_index(++n_taken);
        *request->mutable_request() = Prompt("?");
        return n_taken < 1'000'000;
      },
      [](const auto&) { return true; });
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "after 4 attempts"));
  EXPECT_LT(n_taken, 500'000);
}

TEST_F(ClientTest, AnErrorThatWillNotChangeIsAResult) {
  static constexpr grpc::StatusCode kCodes[] = {
      grpc::StatusCode::INVALID_ARGUMENT, grpc::StatusCode::NOT_FOUND,
      grpc::StatusCode::RESOURCE_EXHAUSTED,  // without a retry_delay
      grpc::StatusCode::INTERNAL};
  fake_.on_batch = [&](auto* context, auto* stream) {
    v1::BatchGenerateRequest request;
    while (stream->Read(&request)) {
      stream->Write(ErrorResult(request.index(), kCodes[request.index()]));
    }
    return grpc::Status::OK;
  };
  auto client = MustCreate(Options());
  std::vector<int> seen;
  const absl::Status status =
      client->BatchGenerate(Numbers(4), [&](const auto& result) {
        seen.push_back(result.error().code());
        return true;
      });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(seen, std::vector<int>(std::begin(kCodes), std::end(kCodes)));
  EXPECT_TRUE(pauses_.empty());
}

TEST_F(ClientTest, AResultThatNobodyWaitsForEndsTheBatch) {
  for (const int64_t stray : {int64_t{0}, int64_t{5}, int64_t{-1}}) {
    fake_.on_batch = [stray](auto* context, auto* stream) {
      Echo(stream, 1);
      stream->Write(ErrorResult(stray, grpc::StatusCode::NOT_FOUND));
      return WaitForCancellation(context);
    };
    auto client = MustCreate(Options());
    int n_results = 0;
    const absl::Status status =
        client->BatchGenerate(Numbers(1), [&](const auto& result) {
          ++n_results;
          return true;
        });
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_TRUE(
        absl::StrContains(status.message(), absl::StrCat("prompt ", stray)))
        << status;
    EXPECT_EQ(n_results, 1);
  }
}

// A server that goes away may end its calls in several ways.
TEST_F(ClientTest, ABatchOutlivesHoweverItsStreamBreaks) {
  for (const grpc::StatusCode code :
       {grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::CANCELLED,
        grpc::StatusCode::UNKNOWN, grpc::StatusCode::ABORTED,
        grpc::StatusCode::RESOURCE_EXHAUSTED}) {
    std::atomic<int> n_calls{0};
    fake_.on_batch = [&n_calls, code](auto* context, auto* stream) {
      return ++n_calls == 1 ? Error(code) : Echo(stream);
    };
    auto client = MustCreate(Options());
    int n_results = 0;
    const absl::Status status =
        client->BatchGenerate(Numbers(9), [&](const auto& result) {
          ++n_results;
          return true;
        });
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(n_results, 9);
  }
  fake_.on_batch = [](auto...) {
    return Error(grpc::StatusCode::PERMISSION_DENIED);
  };
  pauses_.clear();
  EXPECT_EQ(MustCreate(Options())
                ->BatchGenerate(Numbers(9), [](const auto&) { return true; })
                .code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(pauses_.empty());
}

TEST_F(ClientTest, ABatchCanBeCancelledInAPause) {
  fake_.on_batch = [](auto...) { return Unavailable(); };
  Cancellation cancellation;
  CallOptions options;
  options.cancellation = &cancellation;
  options.on_retry = [&](const absl::Status&, absl::Duration) {
    cancellation.Cancel();
  };
  auto client = MustCreate(Options());
  EXPECT_EQ(client
                ->BatchGenerate(
                    Numbers(3), [](const auto&) { return true; }, options)
                .code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(pauses_.size(), 1u);
}

TEST_F(ClientTest, ACallbackCanEndItsBatch) {
  fake_.on_batch = [](auto* context, auto* stream) { return Echo(stream); };
  auto client = MustCreate(Options());
  EXPECT_EQ(
      client->BatchGenerate(Numbers(1 << 30), [](const auto&) { return false; })
          .code(),
      absl::StatusCode::kCancelled);
}

TEST_F(ClientTest, AsksForTokensModelsAndWorkers) {
  fake_.on_tokenize = [](auto& request, auto* response) {
    response->add_token_ids(static_cast<int>(request.text().size()));
    return grpc::Status::OK;
  };
  fake_.on_detokenize = [](auto& request, auto* response) {
    response->set_text(absl::StrCat(request.token_ids(0)));
    return grpc::Status::OK;
  };
  fake_.on_list_models = [](auto& request, auto* response) {
    response->add_models()->set_name("m");
    return grpc::Status::OK;
  };
  fake_.on_get_model = [](auto& request, auto* response) {
    response->mutable_model()->set_name(request.model());
    return grpc::Status::OK;
  };
  fake_.on_list_workers = [](auto& request, auto* response) {
    response->add_workers()->set_worker_id("w");
    return grpc::Status::OK;
  };
  fake_.on_abort = [](auto& request, auto* response) {
    return request.request_id() == "known" ? grpc::Status::OK
                                           : Error(grpc::StatusCode::NOT_FOUND);
  };
  auto client = MustCreate(Options());
  v1::TokenizeRequest text;
  text.set_text("four");
  EXPECT_EQ(client->Tokenize(text)->token_ids(0), 4);
  v1::DetokenizeRequest tokens;
  tokens.add_token_ids(17);
  EXPECT_EQ(client->Detokenize(tokens)->text(), "17");
  EXPECT_EQ(client->ListModels()->models(0).name(), "m");
  v1::GetModelRequest model;
  model.set_model("n");
  EXPECT_EQ(client->GetModel(model)->model().name(), "n");
  EXPECT_EQ(client->ListWorkers()->workers(0).worker_id(), "w");
  EXPECT_TRUE(client->Abort("known").ok());
  EXPECT_EQ(client->Abort("unknown").code(), absl::StatusCode::kNotFound);
}

TEST_F(ClientTest, AsksTheHealthService) {
  auto client = MustCreate(Options());
  fake_.SetServing("readiness", false);
  EXPECT_TRUE(*client->IsServing("liveness"));
  EXPECT_FALSE(*client->IsServing("readiness"));
  fake_.SetServing("readiness", true);
  EXPECT_TRUE(*client->IsServing("readiness"));
  EXPECT_EQ(client->IsServing("nothing").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(ClientTest, RefusesSenselessOptions) {
  ClientOptions options = Options();
  options.max_attempts = 0;
  EXPECT_EQ(Client::Create(options).status().code(),
            absl::StatusCode::kInvalidArgument);
  options = Options();
  options.server = "example.org:7600";
  EXPECT_EQ(Client::Create(options).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(ClientTls, TheServerMustBeACoordinator) {
  DevCerts certs;
  for (const std::string role : {"coordinator", "worker"}) {
    FakeCluster fake(certs.For(role));
    ClientOptions options;
    options.server = fake.address();
    options.credentials = certs.For("client");
    options.max_attempts = 1;
    auto client = Client::Create(options);
    ASSERT_TRUE(client.ok()) << client.status();
    EXPECT_EQ((*client)->IsServing("liveness").ok(), role == "coordinator");
  }
}

}  // namespace
}  // namespace tern
