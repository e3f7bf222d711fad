// `tern bench engine`: small versions of some rows, one with mock workers, one
// of the pure core, one that the demo model is too short for.

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

struct Outcome {
  int exit_code = -1;
  std::string log;
};

// Runs `tern bench engine` with the flags.
Outcome Engine(const std::vector<std::string>& flags) {
  static int n_runs = 0;
  std::vector<std::string> argv = {"cli/tern", "bench", "engine"};
  argv.insert(argv.end(), flags.begin(), flags.end());
  Outcome outcome;
  const absl::StatusOr<std::unique_ptr<Process>> process = Process::Start(
      argv, absl::StrCat(testing::TempDir(), "/engine-", ++n_runs, ".log"));
  if (!process.ok()) {
    ADD_FAILURE() << process.status();
    return outcome;
  }
  const absl::StatusOr<int> code = (*process)->Wait(absl::Minutes(3));
  outcome.log = (*process)->Log();
  EXPECT_TRUE(code.ok()) << code.status() << outcome.log;
  outcome.exit_code = code.value_or(-1);
  return outcome;
}

nlohmann::json Figure(const nlohmann::json& report, const std::string& row) {
  for (const nlohmann::json& figure : report["figures"]) {
    if (figure["row"] == row) return figure;
  }
  return nlohmann::json::object();
}

TEST(EngineBench, MeasuresTheRowsAskedFor) {
  const std::string path = absl::StrCat(testing::TempDir(), "/engine.json");
  const Outcome outcome =
      Engine({"--rows=plan,idle,arrival", "--duration=600ms", "--rounds=1",
              absl::StrCat("--json=", path)});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.log;
  std::ifstream file(path);
  const nlohmann::json report = nlohmann::json::parse(
      std::string(std::istreambuf_iterator<char>(file), {}), nullptr, false);
  ASSERT_TRUE(report.is_object()) << outcome.log;
  EXPECT_EQ(report["figures"].size(), 3u) << report;

  const nlohmann::json plan = Figure(report, "plan");
  EXPECT_GT(plan["measured"], 0.1) << report;
  EXPECT_EQ(plan["target"], 100);
  EXPECT_NE(outcome.log.find(plan["what"]), std::string::npos) << outcome.log;

  const nlohmann::json idle = Figure(report, "idle");
  EXPECT_GE(idle["measured"], 0) << report;
  EXPECT_LE(idle["measured"], 100) << report;

  const nlohmann::json arrival = Figure(report, "arrival");
  EXPECT_FALSE(arrival.contains("measured")) << report;
  EXPECT_NE(std::string(arrival["skipped"]).find("--model_file"),
            std::string::npos)
      << report;
}

TEST(EngineBench, SaysWhatIsWrong) {
  const struct {
    const char* flag;
    const char* says;
  } kWrong[] = {
      {"--rows=plan,speed", "has \"speed\"; there are cpu, plan"},
      {"--rounds=0", "--rounds is 0"},
      {"--duration=1ms", "--duration must be"},
      {"--model_file=missing.gguf", "no model at missing.gguf"},
  };
  for (const auto& wrong : kWrong) {
    const Outcome outcome = Engine({wrong.flag});
    EXPECT_EQ(outcome.exit_code, 2) << outcome.log;
    EXPECT_NE(outcome.log.find(wrong.says), std::string::npos)
        << wrong.says << "\n"
        << outcome.log;
  }
}

}  // namespace
}  // namespace tern
