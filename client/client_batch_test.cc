// Batches: client/client.h.

#include <atomic>
#include <iterator>
#include <memory>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/client.h"
#include "client/client_fixture.h"
#include "client/fake_cluster.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

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

}  // namespace
}  // namespace tern
