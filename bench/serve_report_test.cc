#include "bench/serve_report.h"

#include <string>
#include <utility>

#include "absl/time/time.h"
#include "bench/cpu_times.h"
#include "bench/load_generator.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tern {
namespace {

ServeReport Example() {
  LoadResult load;
  load.window = absl::Seconds(2);
  load.n_ok = 3;
  load.n_good = 2;
  load.errors = {{"RESOURCE_EXHAUSTED", 4}, {"UNAVAILABLE", 1}};
  load.first_error = "not UTF-8: \xff, \"quoted\"";
  load.n_output_tokens = 100;
  load.n_prompt_tokens = 50;
  load.n_messages = 80;
  load.ttft_ms = {30, 10, 20};
  load.e2e_ms = {100, 300, 200};
  load.gap_ms = {1, 2, 3, 4};
  load.tokens_by_time = {40, 60};
  ServeReport report = MakeReport(std::move(load));
  report.settings = {{"model", "demo"}};
  CoordinatorCpu cpu;
  cpu.total = absl::Milliseconds(5);
  cpu.by_thread_name = {{"engine", absl::Milliseconds(1)}};
  report.coordinator_cpu = cpu;
  report.stages = {{"mock-0", 7, 100, 0.25}};
  return report;
}

TEST(ServeReport, JsonHasEveryNumber) {
  const nlohmann::json json =
      nlohmann::json::parse(JsonOf(Example()), nullptr, false);
  ASSERT_TRUE(json.is_object());
  EXPECT_EQ(json["settings"]["model"], "demo");
  EXPECT_EQ(json["window_s"], 2);
  EXPECT_EQ(json["requests"]["ok"], 3);
  EXPECT_EQ(json["requests"]["failed"], 5);
  EXPECT_EQ(json["requests"]["errors"]["RESOURCE_EXHAUSTED"], 4);
  EXPECT_EQ(json["per_second"]["output_tokens"], 50);
  EXPECT_EQ(json["per_second"]["good_requests"], 1);
  EXPECT_EQ(json["tokens"]["per_message"], 1.25);
  EXPECT_EQ(json["latency_ms"]["first_token"]["p50"], 20);
  EXPECT_EQ(json["latency_ms"]["end_to_end"]["max"], 300);
  EXPECT_EQ(json["latency_ms"]["gap"]["count"], 4);
  EXPECT_EQ(json["latency_ms"]["mean_gap"]["count"], 0);
  EXPECT_EQ(json["coordinator_cpu"]["us_per_token"], 50);
  EXPECT_EQ(json["coordinator_cpu"]["us_per_token_by_thread"]["engine"], 10);
  EXPECT_EQ(json["stages"][0]["idle_share"], 0.25);
}

TEST(ServeReport, OfNothingIsStillWhole) {
  const ServeReport report = MakeReport(LoadResult());
  EXPECT_TRUE(
      nlohmann::json::parse(JsonOf(report), nullptr, false).is_object());
  EXPECT_NE(TextOf(report).find("0 answered"), std::string::npos);
  EXPECT_NE(PlotOf(report).find("</svg>"), std::string::npos);
}

TEST(ServeReport, TextNamesErrorsAndPercentiles) {
  const std::string text = TextOf(Example());
  for (const char* part :
       {"3 answered", "5 failed", "4 RESOURCE_EXHAUSTED", "50.0 output",
        "1.00 within the limits", "engine", "mock-0"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
}

TEST(CoordinatorCpu, ThreadsThatHaveEndedAreInTheTotal) {
  const CpuTimes before = {
      absl::Seconds(10),
      {{"engine", absl::Seconds(1)}, {"gone", absl::Seconds(5)}}};
  const CpuTimes after = {
      absl::Seconds(16),
      {{"engine", absl::Seconds(3)}, {"new", absl::Seconds(1)}}};
  const CoordinatorCpu cpu = CpuBetween(before, after);
  EXPECT_EQ(cpu.total, absl::Seconds(6));
  EXPECT_EQ(cpu.by_thread_name.at("engine"), absl::Seconds(2));
  EXPECT_EQ(cpu.by_thread_name.at("new"), absl::Seconds(1));
  EXPECT_EQ(cpu.by_thread_name.at("(ended)"), absl::Seconds(3));
  EXPECT_EQ(cpu.by_thread_name.count("gone"), 0);
}

}  // namespace
}  // namespace tern
