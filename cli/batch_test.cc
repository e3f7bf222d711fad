// Runs `tern batch` itself against a fake cluster.

#include <algorithm>
#include <atomic>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cli/tern_testing.h"
#include "client/fake_cluster.h"
#include "grpcpp/support/status.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/inference.pb.h"

namespace tern {
namespace {

using BatchStream = FakeCluster::BatchStream;

v1::BatchGenerateResponse AnswerTo(const v1::BatchGenerateRequest& request) {
  v1::BatchGenerateResponse result;
  result.set_index(request.index());
  v1::Candidate* candidate = result.mutable_response()->add_candidates();
  candidate->set_text(absl::StrCat("re: ", request.request().text()));
  candidate->set_finish_reason(v1::FINISH_REASON_STOP);
  result.mutable_response()->mutable_usage()->set_output_token_count(2);
  return result;
}

v1::BatchGenerateResponse ErrorTo(const v1::BatchGenerateRequest& request,
                                  grpc::StatusCode code) {
  v1::BatchGenerateResponse result;
  result.set_index(request.index());
  result.mutable_error()->set_code(code);
  result.mutable_error()->set_message("why");
  return result;
}

// Files of prompts and results beside a cluster that answers every prompt.
class BatchTest : public TernTest {
 protected:
  BatchTest() {
    fake_.on_get_model = [](auto&, auto*) { return grpc::Status::OK; };
    fake_.on_batch = [this](auto* context, BatchStream* stream) {
      v1::BatchGenerateRequest request;
      while (Read(stream, &request)) stream->Write(AnswerTo(request));
      return grpc::Status::OK;
    };
    static std::atomic<int> next{0};
    in_path_ = absl::StrCat(testing::TempDir(), "/", ++next, "-in.jsonl");
    out_path_ =
        absl::StrCat(testing::TempDir(), "/", next.load(), "-out.jsonl");
  }

  // The cluster outlives what its handlers write to; its calls have ended.
  ~BatchTest() override {
    absl::MutexLock lock(&mu_);
    n_sent_.clear();
  }

  // As the cluster reads, and counts how often each text was sent.
  bool Read(BatchStream* stream, v1::BatchGenerateRequest* request) {
    if (!stream->Read(request)) return false;
    absl::MutexLock lock(&mu_);
    ++n_sent_[request->request().text()];
    return true;
  }

  std::map<std::string, int> n_sent() {
    absl::MutexLock lock(&mu_);
    return n_sent_;
  }

  // Prompts "0" to count-1, whose ids are "p0" and so on.
  void WritePrompts(int count) {
    std::ofstream file(in_path_);
    for (int i = 0; i < count; ++i) {
      file << "{\"id\":\"p" << i << "\",\"prompt\":\"" << i << "\"}\n";
    }
  }

  int Batch(std::vector<std::string> flags = {}) {
    flags.insert(flags.begin(), {"batch", in_path_, out_path_});
    return Tern(flags);
  }

  // Whether the results are those of prompts 0 to count-1, each once.
  testing::AssertionResult HasAll(int count) {
    std::set<std::string> expected;
    for (int i = 0; i < count; ++i) {
      expected.insert(absl::StrCat(
          "{\"id\":\"p", i, "\",\"text\":\"re: ", i,
          "\",\"finish_reason\":\"stop\",\"usage\":{\"prompt_token_count\":0,"
          "\"output_token_count\":2,\"cached_prompt_token_count\":0}}"));
    }
    const std::string contents = ReadAll(out_path_);
    int n_lines = 0;
    for (absl::string_view line : absl::StrSplit(contents, '\n')) {
      if (line.empty()) continue;
      ++n_lines;
      if (expected.erase(std::string(line)) == 0) {
        return testing::AssertionFailure() << "unexpected or twice: " << line;
      }
    }
    if (!expected.empty()) {
      return testing::AssertionFailure()
             << expected.size() << " are missing, such as "
             << *expected.begin();
    }
    if (n_lines > 0 && contents.back() != '\n') {
      return testing::AssertionFailure() << "the last line has no end";
    }
    return testing::AssertionSuccess();
  }

  std::string in_path_;
  std::string out_path_;
  absl::Mutex mu_;
  std::map<std::string, int> n_sent_ ABSL_GUARDED_BY(mu_);
};

TEST_F(BatchTest, AnswersEveryPromptAndSendsNothingTheSecondTime) {
  WritePrompts(500);
  EXPECT_EQ(Batch(), 0) << err_;
  EXPECT_TRUE(HasAll(500));
  EXPECT_EQ(out_, "");
  EXPECT_TRUE(Said("500 of 500 prompts have a result; 500 new ones")) << err_;
  for (const auto& [text, count] : n_sent()) EXPECT_EQ(count, 1);

  const std::string before = ReadAll(out_path_);
  // Nobody listens there, and nobody needs to.
  EXPECT_EQ(TernAsIs({"batch", in_path_, out_path_, "--server=127.0.0.1:1"}), 0)
      << err_;
  EXPECT_TRUE(Said("500 of 500 prompts have a result, 500 from before"));
  EXPECT_EQ(ReadAll(out_path_), before);
}

TEST_F(BatchTest, QuietSaysNothing) {
  WritePrompts(3);
  EXPECT_EQ(Batch({"--quiet"}), 0);
  EXPECT_EQ(err_, "");
}

TEST_F(BatchTest, GoesFromStdinToStdout) {
  EXPECT_EQ(Tern({"batch", "-", "-"}, "{\"prompt\":\"x\"}"), 0) << err_;
  EXPECT_TRUE(absl::StartsWith(out_, "{\"id\":\"1\",\"text\":\"re: x\""))
      << out_;
}

TEST_F(BatchTest, PassesFlagsAndFieldsOn) {
  std::ofstream(in_path_) << R"({"prompt":"a"})"
                             "\n"
                             R"({"prompt":"b","sampling":{"top_k":3}})"
                             "\n";
  absl::Mutex mu;
  std::map<std::string, v1::GenerateRequest> seen;
  fake_.on_batch = [&](auto* context, BatchStream* stream) {
    v1::BatchGenerateRequest request;
    while (stream->Read(&request)) {
      absl::MutexLock lock(&mu);
      seen[request.request().text()] = request.request();
      stream->Write(AnswerTo(request));
    }
    return grpc::Status::OK;
  };
  EXPECT_EQ(Batch({"--model=m", "--top_k=2", "--seed=5", "--max_tokens=7"}), 0);
  absl::MutexLock lock(&mu);
  for (const char* text : {"a", "b"}) {
    EXPECT_EQ(seen[text].model(), "m");
    EXPECT_EQ(seen[text].sampling().seed(), 5);
    EXPECT_EQ(seen[text].stopping().max_output_tokens(), 7);
  }
  EXPECT_EQ(seen["a"].sampling().top_k(), 2);
  EXPECT_EQ(seen["b"].sampling().top_k(), 3);
}

TEST_F(BatchTest, ResultsMayComeInAnyOrder) {
  WritePrompts(50);
  fake_.on_batch = [this](auto* context, BatchStream* stream) {
    std::vector<v1::BatchGenerateResponse> results;
    v1::BatchGenerateRequest request;
    while (Read(stream, &request)) results.push_back(AnswerTo(request));
    std::reverse(results.begin(), results.end());
    for (const auto& result : results) stream->Write(result);
    return grpc::Status::OK;
  };
  EXPECT_EQ(Batch(), 0) << err_;
  EXPECT_TRUE(HasAll(50));
  EXPECT_TRUE(absl::StartsWith(ReadAll(out_path_), "{\"id\":\"p49\""));
}

TEST_F(BatchTest, AnErrorThatStaysIsAResult) {
  WritePrompts(3);
  fake_.on_batch = [this](auto* context, BatchStream* stream) {
    v1::BatchGenerateRequest request;
    while (Read(stream, &request)) {
      stream->Write(request.request().text() == "1"
                        ? ErrorTo(request, grpc::StatusCode::INVALID_ARGUMENT)
                        : AnswerTo(request));
    }
    return grpc::Status::OK;
  };
  // The second time there is nothing left to do, and still an error.
  for (int run = 0; run < 2; ++run) {
    EXPECT_EQ(Batch(), 1);
    EXPECT_TRUE(Said("1 of the results are errors")) << err_;
    EXPECT_TRUE(absl::StrContains(
        ReadAll(out_path_),
        "{\"id\":\"p1\",\"error\":{\"code\":\"INVALID_ARGUMENT\","
        "\"message\":\"why\"}}\n"));
  }
  for (const auto& [text, count] : n_sent()) EXPECT_EQ(count, 1);
}

TEST_F(BatchTest, SendsAgainWhatABrokenStreamCarried) {
  WritePrompts(100);
  std::atomic<int> n_calls{0};
  fake_.on_batch = [&](auto* context, BatchStream* stream) {
    v1::BatchGenerateRequest request;
    const bool breaks = ++n_calls < 4;
    for (int n = 0; Read(stream, &request); ++n) {
      // Reads some that it never answers.
      if (breaks && n == 25) {
        return grpc::Status(grpc::StatusCode::UNAVAILABLE, "broken");
      }
      if (!breaks || n < 20) stream->Write(AnswerTo(request));
    }
    return grpc::Status::OK;
  };
  EXPECT_EQ(Batch(), 0) << err_;
  EXPECT_TRUE(HasAll(100));
  EXPECT_EQ(n_calls, 4);
  EXPECT_TRUE(Said("broken; trying again in")) << err_;
}

TEST_F(BatchTest, SendsAgainWhatFoundNoRoom) {
  WritePrompts(100);
  std::atomic<int> n_refused{0};
  fake_.on_batch = [&](auto* context, BatchStream* stream) {
    v1::BatchGenerateRequest request;
    while (Read(stream, &request)) {
      const bool refuse =
          absl::EndsWith(request.request().text(), "7") && ++n_refused <= 5;
      stream->Write(refuse ? ErrorTo(request, grpc::StatusCode::UNAVAILABLE)
                           : AnswerTo(request));
    }
    return grpc::Status::OK;
  };
  EXPECT_EQ(Batch(), 0) << err_;
  EXPECT_TRUE(HasAll(100));
}

TEST_F(BatchTest, GivesUpAndGoesOnWhenRunAgain) {
  WritePrompts(30);
  const auto healthy = fake_.on_batch.get();
  std::atomic<int> n_calls{0};
  fake_.on_batch = [&](auto* context, BatchStream* stream) {
    v1::BatchGenerateRequest request;
    if (++n_calls == 1) {
      for (int n = 0; n < 10 && Read(stream, &request); ++n) {
        stream->Write(AnswerTo(request));
      }
    }
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone");
  };
  EXPECT_EQ(Batch({"--max_attempts=3"}), 3);
  EXPECT_EQ(n_calls, 3);
  EXPECT_TRUE(Said("UNAVAILABLE: gone (after 3 attempts)")) << err_;
  EXPECT_TRUE(
      Said("20 of 30 prompts have no result; running the same command "
           "again goes on with them"))
      << err_;
  EXPECT_TRUE(HasAll(10));

  fake_.on_batch = healthy;
  EXPECT_EQ(Batch(), 0) << err_;
  EXPECT_TRUE(HasAll(30));
  EXPECT_TRUE(Said("30 of 30 prompts have a result, 10 from before; 20 new"));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(n_sent()[absl::StrCat(i)], 1);
}

TEST_F(BatchTest, ATornResultIsAskedForAgain) {
  WritePrompts(5);
  EXPECT_EQ(Batch(), 0);
  const std::string whole = ReadAll(out_path_);
  std::ofstream(out_path_) << whole.substr(0, whole.size() - 20);
  EXPECT_EQ(Batch(), 0);
  EXPECT_TRUE(HasAll(5));
  EXPECT_EQ(n_sent()["4"], 2);
  EXPECT_EQ(n_sent()["3"], 1);
}

TEST_F(BatchTest, AResultThatNobodyAskedForIsNotWritten) {
  WritePrompts(1);
  fake_.on_batch = [this](auto* context, BatchStream* stream) {
    v1::BatchGenerateRequest request;
    Read(stream, &request);
    stream->Write(AnswerTo(request));
    stream->Write(AnswerTo(request));
    while (!context->IsCancelled() && stream->Read(&request)) {
    }
    return grpc::Status::OK;
  };
  EXPECT_EQ(Batch(), 1);
  EXPECT_TRUE(Said("INTERNAL: the cluster sent a result for prompt 0")) << err_;
  EXPECT_TRUE(HasAll(1));
}

TEST_F(BatchTest, CtrlCEndsItAndTheNextRunGoesOn) {
  WritePrompts(20);
  const auto healthy = fake_.on_batch.get();
  absl::Mutex mu;
  bool answered = false;
  fake_.on_batch = [&](auto* context, BatchStream* stream) {
    v1::BatchGenerateRequest request;
    for (int n = 0; n < 5 && Read(stream, &request); ++n) {
      stream->Write(AnswerTo(request));
    }
    {
      absl::MutexLock lock(&mu);
      answered = true;
    }
    while (stream->Read(&request)) {
    }
    // Until the caller is gone: it has sent everything and waits.
    while (!context->IsCancelled()) std::this_thread::yield();
    return grpc::Status::CANCELLED;
  };
  Process process(
      {"batch", in_path_, out_path_, "--server=" + fake_.address()});
  {
    absl::MutexLock lock(&mu);
    ASSERT_TRUE(mu.AwaitWithTimeout(absl::Condition(&answered), kPatience));
  }
  process.Interrupt();
  EXPECT_EQ(process.Wait(), 130);
  EXPECT_TRUE(absl::StrContains(process.err(), "prompts have no result"))
      << process.err();
  fake_.on_batch = healthy;
  EXPECT_EQ(Batch(), 0) << err_;
  EXPECT_TRUE(HasAll(20));
}

TEST_F(BatchTest, NothingIsSentOfAFileWithABadLine) {
  WritePrompts(5);
  std::ofstream(in_path_, std::ios::app) << "{\"promt\":\"x\"}\n";
  EXPECT_EQ(Batch(), 2);
  EXPECT_TRUE(Said(absl::StrCat(in_path_, ":6: there is no field \"promt\"")))
      << err_;
  EXPECT_TRUE(n_sent().empty());
}

TEST_F(BatchTest, RefusesCommandLinesThatCannotWork) {
  WritePrompts(1);
  EXPECT_EQ(Tern({"batch", in_path_}), 2);
  EXPECT_EQ(Tern({"batch", in_path_, in_path_}), 2);
  EXPECT_TRUE(Said("the prompts are there")) << err_;
  EXPECT_EQ(Tern({"batch", "/no/such/file", out_path_}), 2);
  EXPECT_TRUE(Said("/no/such/file")) << err_;
  EXPECT_EQ(Batch({"--max_attempts=0"}), 2);
  std::ofstream(out_path_) << "precious\n";
  EXPECT_EQ(Batch(), 2);
  EXPECT_EQ(ReadAll(out_path_), "precious\n");
  EXPECT_TRUE(n_sent().empty());
}

// It would be the result of every prompt.
TEST_F(BatchTest, AModelThatIsNotThereEndsIt) {
  WritePrompts(5);
  fake_.on_get_model = [](auto&, auto*) {
    return grpc::Status(grpc::StatusCode::NOT_FOUND, "no model m");
  };
  EXPECT_EQ(Batch({"--model=m"}), 1);
  EXPECT_TRUE(Said("NOT_FOUND: no model m")) << err_;
  EXPECT_EQ(ReadAll(out_path_), "");
  EXPECT_TRUE(n_sent().empty());
}

}  // namespace
}  // namespace tern
