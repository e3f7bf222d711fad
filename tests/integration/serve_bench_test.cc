// `tern bench serve` against clusters that it starts itself: coordinator, mock
// workers and real ones as processes.

#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/integration/process.h"

namespace tern {
namespace {

constexpr char kDemo[] = "models/demo/shakespeare-demo-i2_s.gguf";

std::string Scratch(const std::string& name) {
  return absl::StrCat(testing::TempDir(), "/", name);
}

std::string Read(const std::string& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

struct Outcome {
  int exit_code = -1;
  std::string log;
  nlohmann::json json;  // null when there is none
};

// Runs `tern bench serve` with the flags.
Outcome Serve(std::vector<std::string> flags) {
  static int n_runs = 0;
  const std::string name = absl::StrCat("serve-", ++n_runs);
  const std::string json = Scratch(name + ".json");
  std::vector<std::string> argv = {"cli/tern", "bench", "serve",
                                   absl::StrCat("--json=", json)};
  argv.insert(argv.end(), flags.begin(), flags.end());
  Outcome outcome;
  const absl::StatusOr<std::unique_ptr<Process>> process =
      Process::Start(argv, Scratch(name + ".log"));
  if (!process.ok()) {
    ADD_FAILURE() << process.status();
    return outcome;
  }
  const absl::StatusOr<int> code = (*process)->Wait(absl::Minutes(2));
  outcome.log = (*process)->Log();
  if (!code.ok()) {
    ADD_FAILURE() << code.status();
    return outcome;
  }
  outcome.exit_code = *code;
  outcome.json = nlohmann::json::parse(Read(json), nullptr, false);
  return outcome;
}

TEST(ServeBench, MeasuresMockStages) {
  const std::string plot = Scratch("plot.svg");
  const Outcome outcome = Serve(
      {"--start_cluster=mock", absl::StrCat("--model_file=", kDemo),
       "--stages=2", "--workers=3", "--worker_flags=--step_us=200 --token_us=1",
       "--concurrency=8", "--requests=24", "--prompt_tokens=uniform:4-20",
       "--output_tokens=8", absl::StrCat("--plot=", plot)});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.log;
  const nlohmann::json& json = outcome.json;
  ASSERT_TRUE(json.is_object()) << outcome.log;
  EXPECT_EQ(json["requests"]["ok"], 24) << outcome.log;
  EXPECT_EQ(json["requests"]["failed"], 0) << outcome.log;
  EXPECT_LE(json["requests"]["peak_under_way"], 8);
  EXPECT_EQ(json["tokens"]["output"], 24 * 8);
  EXPECT_EQ(json["latency_ms"]["first_token"]["count"], 24);
  EXPECT_EQ(json["latency_ms"]["gap"]["count"], 24 * 7);
  // Two stages, half of 200 us each, before a token can be there.
  EXPECT_GE(json["latency_ms"]["first_token"]["p50"], 0.2);
  EXPECT_GT(json["per_second"]["output_tokens"], 0);
  EXPECT_GT(json["coordinator_cpu"]["us_per_token"], 0);
  EXPECT_GT(json["coordinator_cpu"]["us_per_token_by_thread"]["engine"], 0);
  // The third worker is a spare.
  ASSERT_EQ(json["stages"].size(), 2) << outcome.log;
  for (const nlohmann::json& stage : json["stages"]) {
    // All but the last token of each answer are computed.
    EXPECT_GE(stage["tokens"], 24 * (4 + 7));
    EXPECT_GE(stage["idle_share"], 0);
    EXPECT_LE(stage["idle_share"], 1);
  }
  EXPECT_NE(Read(plot).find("</svg>"), std::string::npos);
}

TEST(ServeBench, CancelsAndKeepsToTheRate) {
  const Outcome outcome =
      Serve({"--start_cluster=mock", absl::StrCat("--model_file=", kDemo),
             "--worker_flags=--step_us=100", "--rate=200", "--requests=40",
             "--cancel_share=0.5", "--prompt_tokens=10", "--output_tokens=50"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.log;
  const nlohmann::json& requests = outcome.json["requests"];
  EXPECT_GT(requests["cancelled"], 5) << outcome.log;
  // A short answer may be whole before its cancellation arrives.
  EXPECT_EQ(requests["cancelled"].get<int>() + requests["ok"].get<int>() +
                requests["not_sent"].get<int>(),
            40)
      << outcome.log;
  EXPECT_EQ(requests["failed"], 0) << outcome.log;
}

TEST(ServeBench, MeasuresRealWorkers) {
  const Outcome outcome =
      Serve({"--start_cluster=real", absl::StrCat("--model_file=", kDemo),
             "--worker_flags=--threads=1", "--concurrency=2", "--requests=4",
             "--prompt_tokens=8", "--output_tokens=4"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.log;
  EXPECT_EQ(outcome.json["requests"]["ok"], 4) << outcome.log;
  EXPECT_EQ(outcome.json["tokens"]["output"], 16) << outcome.log;
}

TEST(ServeBench, SaysWhatIsWrong) {
  const struct {
    std::vector<std::string> flags;
    int exit_code;
    const char* says;
  } kWrong[] = {
      {{"--prompt_tokens=many"}, 2, "no distribution of lengths"},
      {{"--concurrency=-1"}, 2, "--concurrency is -1"},
      {{"--start_cluster=mock"}, 2, "--model_file is missing"},
      {{"--start_cluster=none"}, 2, "must be mock or real"},
      {{"--plot=/nowhere/plot.svg"}, 2, "--plot cannot be written"},
      {{"--start_cluster=mock", "--model_file=missing.gguf"},
       3,
       "missing.gguf"},
      {{"--start_cluster=mock", absl::StrCat("--model_file=", kDemo),
        "--prompt_tokens=100000"},
       2,
       "context holds"},
      {{"--server=127.0.0.1:1", "--wait=0s"}, 3, "was not ready"},
  };
  for (const auto& wrong : kWrong) {
    const Outcome outcome = Serve(wrong.flags);
    EXPECT_EQ(outcome.exit_code, wrong.exit_code) << outcome.log;
    EXPECT_NE(outcome.log.find(wrong.says), std::string::npos)
        << wrong.says << "\n"
        << outcome.log;
  }
}

}  // namespace
}  // namespace tern
