// `tern batch` with real processes on loopback: thousands of prompts over two
// copies of the demo model, one of which is killed, as is the command itself.

#include <signal.h>

#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/local_cluster.h"
#include "tests/integration/process.h"

namespace tern {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kPrompts = 300;
#else
constexpr int kPrompts = 10'000;
#endif
constexpr absl::Duration kPatience = absl::Minutes(4);
constexpr int kMaxTokens = 4;

std::string PromptOf(int i) { return absl::StrCat("Citizen ", i, ":"); }

class BatchTest : public testing::Test {
 protected:
  void SetUp() override {
    LocalCluster::Options options;
    options.workers = 2;
    auto cluster = LocalCluster::Start(std::move(options));
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
    while (n_pipelines() < 2) {
    }
    folder_ = testing::TempDir();
    std::ofstream prompts(InPath());
    for (int i = 0; i < kPrompts; ++i) {
      prompts << nlohmann::json{{"id", absl::StrCat("p", i)},
                                {"prompt", PromptOf(i)}}
              << "\n";
    }
  }

  std::string InPath() const { return folder_ + "/prompts.jsonl"; }
  std::string OutPath() const {
    return absl::StrCat(
        folder_, "/",
        testing::UnitTest::GetInstance()->current_test_info()->name(),
        ".jsonl");
  }

  // Pipelines that serve.
  int n_pipelines() {
    grpc::ClientContext context;
    v1::GetModelResponse response;
    const grpc::Status status =
        cluster_->inference().GetModel(&context, {}, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    int n = 0;
    for (const v1::Pipeline& pipeline : response.model().pipelines()) {
      n += pipeline.state() == v1::PIPELINE_STATE_READY;
    }
    return n;
  }

  // `tern batch`, at work.
  std::unique_ptr<Process> Start(const std::string& server) {
    log_ = absl::StrCat(OutPath(), ".", ++n_runs_, ".log");
    auto process = Process::Start(
        {"cli/tern", "batch", "--server=" + server, "--temperature=0",
         absl::StrCat("--max_tokens=", kMaxTokens), InPath(), OutPath()},
        log_);
    EXPECT_TRUE(process.ok()) << process.status();
    return process.ok() ? *std::move(process) : nullptr;
  }

  // Waits until it has written so many results; false when it ended before.
  bool WaitForResults(Process* process, int count) {
    while (CountLines() < count) {
      if (process->Wait(absl::Milliseconds(20)).ok()) return false;
    }
    return true;
  }

  int CountLines() const {
    std::ifstream file(OutPath());
    std::string line;
    int n = 0;
    while (std::getline(file, line)) ++n;
    return n;
  }

  void ExpectEnd(Process* process, const std::string& said) {
    const auto code = process->Wait(kPatience);
    ASSERT_TRUE(code.ok()) << code.status();
    EXPECT_EQ(*code, 0) << process->Log() << cluster_->Logs();
    EXPECT_NE(process->Log().find(said), std::string::npos) << process->Log();
  }

  // The text of each id. Every line is a whole result, no id comes twice.
  std::map<std::string, std::string> Results() const {
    std::map<std::string, std::string> texts;
    std::ifstream file(OutPath());
    std::string line;
    while (std::getline(file, line)) {
      const auto result = nlohmann::json::parse(line, nullptr, false);
      if (!result.is_object() || !result.contains("text")) {
        ADD_FAILURE() << line;
        continue;
      }
      EXPECT_TRUE(texts.emplace(result["id"], result["text"]).second)
          << result["id"] << " came twice";
    }
    return texts;
  }

  // That every id is there, and that the texts are those of single calls for a
  // sample of them.
  void ExpectWholeAndRight() {
    const auto texts = Results();
    ASSERT_EQ(texts.size(), static_cast<size_t>(kPrompts));
    for (int i = 0; i < kPrompts; i += kPrompts / 100) {
      v1::GenerateRequest request;
      request.set_text(PromptOf(i));
      request.mutable_sampling()->set_temperature(0);
      request.mutable_stopping()->set_max_output_tokens(kMaxTokens);
      grpc::ClientContext context;
      context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
      v1::GenerateResponse response;
      ASSERT_TRUE(
          cluster_->inference().Generate(&context, request, &response).ok());
      const auto text = texts.find(absl::StrCat("p", i));
      ASSERT_NE(text, texts.end());
      EXPECT_EQ(text->second, response.candidates(0).text()) << PromptOf(i);
    }
  }

  // That a further run has nothing to do: it does not even look for a cluster.
  void ExpectNothingLeft() {
    const auto process = Start("127.0.0.1:1");
    ExpectEnd(process.get(), absl::StrCat(kPrompts, " from before"));
    EXPECT_EQ(CountLines(), kPrompts);
  }

  std::unique_ptr<LocalCluster> cluster_;
  std::string folder_;
  std::string log_;
  int n_runs_ = 0;
};

TEST_F(BatchTest, LosesNothingWithAWorker) {
  const auto process = Start(cluster_->server());
  ASSERT_TRUE(WaitForResults(process.get(), kPrompts / 4)) << process->Log();
  EXPECT_EQ(n_pipelines(), 2);
  cluster_->worker(1).Signal(SIGKILL);
  ExpectEnd(process.get(), absl::StrCat(kPrompts, " new ones"));
  EXPECT_EQ(n_pipelines(), 1) << "it was killed too late";
  std::cout << process->Log();
  ExpectWholeAndRight();
  ExpectNothingLeft();
}

TEST_F(BatchTest, GoesOnAfterItsOwnDeath) {
  {
    const auto process = Start(cluster_->server());
    ASSERT_TRUE(WaitForResults(process.get(), kPrompts / 4)) << process->Log();
    process->Signal(SIGKILL);
    const auto code = process->Wait(kPatience);
    ASSERT_TRUE(code.ok()) << code.status();
    EXPECT_EQ(*code, 128 + SIGKILL) << "it was killed too late";
  }
  const int n_before = CountLines();
  EXPECT_LT(n_before, kPrompts);
  const auto process = Start(cluster_->server());
  ExpectEnd(process.get(), absl::StrCat(kPrompts, " prompts have a result, "));
  std::cout << process->Log();
  ExpectWholeAndRight();
  ExpectNothingLeft();
}

// The connection breaks, and nobody answers for a while.
TEST_F(BatchTest, GoesOnWhenTheCoordinatorIsBack) {
  const auto process = Start(cluster_->server());
  ASSERT_TRUE(WaitForResults(process.get(), kPrompts / 4)) << process->Log();
  ASSERT_TRUE(cluster_->RestartCoordinator().ok());
  ExpectEnd(process.get(), "trying again in");
  ASSERT_TRUE(cluster_->WaitUntilReady().ok());
  ExpectWholeAndRight();
}

}  // namespace
}  // namespace tern
