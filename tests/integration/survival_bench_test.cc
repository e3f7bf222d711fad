// `tern bench survival`: small versions of its rows.

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

// Runs `tern bench survival` with the flags.
Outcome Survival(const std::vector<std::string>& flags) {
  static int n_runs = 0;
  std::vector<std::string> argv = {"cli/tern", "bench", "survival"};
  argv.insert(argv.end(), flags.begin(), flags.end());
  Outcome outcome;
  const absl::StatusOr<std::unique_ptr<Process>> process = Process::Start(
      argv, absl::StrCat(testing::TempDir(), "/survival-", ++n_runs, ".log"));
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

TEST(SurvivalBench, MeasuresEveryRowAndComparesEveryStream) {
  const std::string path = absl::StrCat(testing::TempDir(), "/survival.json");
  const Outcome outcome =
      Survival({"--rounds=1", "--streams=8", absl::StrCat("--json=", path)});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.log;
  std::ifstream file(path);
  const nlohmann::json report = nlohmann::json::parse(
      std::string(std::istreambuf_iterator<char>(file), {}), nullptr, false);
  ASSERT_TRUE(report.is_object()) << outcome.log;
  std::string rows;
  for (const nlohmann::json& figure : report["figures"]) {
    absl::StrAppend(&rows, std::string(figure["row"]), " ");
    EXPECT_TRUE(figure.contains("target")) << figure;
    if (figure["row"] == "exact") {
      EXPECT_EQ(figure["measured"], 0) << figure;
      // One each of death, hang, replay, both and coordinator, and those of
      // drain.
      EXPECT_NE(std::string(figure["detail"]).find("13 streams"),
                std::string::npos)
          << figure;
    } else {
      EXPECT_GT(figure["measured"], 0) << figure;
    }
  }
  EXPECT_EQ(rows,
            "death death hang hang replay drain drain join both coordinator "
            "exact ");
}

TEST(SurvivalBench, SaysWhatIsWrong) {
  const struct {
    const char* flag;
    const char* says;
  } kWrong[] = {
      {"--rows=death,doom", "has \"doom\"; there are death, hang"},
      {"--rounds=0", "--rounds is 0"},
      {"--streams=65", "--streams is 65"},
      {"--prompt_tokens=100000", "the model's context holds"},
      {"--model_file=missing.gguf", "no model at missing.gguf"},
  };
  for (const auto& wrong : kWrong) {
    const Outcome outcome = Survival({wrong.flag});
    EXPECT_EQ(outcome.exit_code, 2) << outcome.log;
    EXPECT_NE(outcome.log.find(wrong.says), std::string::npos)
        << wrong.says << "\n"
        << outcome.log;
  }
}

}  // namespace
}  // namespace tern
