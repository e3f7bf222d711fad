// Streams that may be resumed: client/client.h.

#include <atomic>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/time/time.h"
#include "client/client.h"
#include "client/client_fixture.h"
#include "client/fake_cluster.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

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

}  // namespace
}  // namespace tern
