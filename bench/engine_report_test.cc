#include "bench/engine_report.h"

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tern {
namespace {

EngineFigure Figure(double measured, bool more_is_better, double target,
                    double aim) {
  EngineFigure figure;
  figure.row = "row";
  figure.what = "something";
  figure.unit = "us";
  figure.measured = measured;
  figure.more_is_better = more_is_better;
  figure.target = target;
  figure.aim = aim;
  return figure;
}

TEST(EngineReport, VerdictsCompareInTheDirectionOfTheFigure) {
  EXPECT_EQ(VerdictOf(Figure(0.97, true, 0.9, 0.97)), "aim");
  EXPECT_EQ(VerdictOf(Figure(0.9, true, 0.9, 0.97)), "yes");
  EXPECT_EQ(VerdictOf(Figure(0.89, true, 0.9, 0.97)), "no");
  EXPECT_EQ(VerdictOf(Figure(5, false, 10, 5)), "aim");
  EXPECT_EQ(VerdictOf(Figure(10, false, 10, 5)), "yes");
  EXPECT_EQ(VerdictOf(Figure(10.1, false, 10, 5)), "no");
}

TEST(EngineReport, NothingIsSaidOfWhatIsNotAskedForOrNotMeasured) {
  EngineFigure figure = Figure(1, true, 0.5, 0.6);
  figure.target.reset();
  EXPECT_EQ(VerdictOf(figure), "-");
  figure = Figure(1, true, 0.5, 0.6);
  figure.skipped = "no model";
  EXPECT_EQ(VerdictOf(figure), "-");
}

TEST(EngineReport, AFigureIsALineToo) {
  EngineFigure figure = Figure(7.25, false, 10, 5);
  EXPECT_EQ(LineOf(figure),
            "row: something: 7.25 us, wanted <= 10.00 (aim 5.00)");
  figure.skipped = "no model";
  EXPECT_EQ(LineOf(figure), "row: something: skipped: no model");
}

TEST(EngineReport, TablesAndJsonHoldTheFigures) {
  EngineReport report;
  report.settings = {{"machine", "small"}};
  report.figures = {Figure(7.25, false, 10, 5), Figure(0, true, 2, 3)};
  report.figures[0].limit = "6 us";
  report.figures[1].skipped = "the context is short";
  const std::string text = TextOf(report);
  EXPECT_NE(text.find("small"), std::string::npos) << text;
  EXPECT_NE(text.find("7.25 us"), std::string::npos) << text;
  EXPECT_NE(text.find("<= 10.00 (aim 5.00)"), std::string::npos) << text;
  EXPECT_NE(text.find("6 us"), std::string::npos) << text;
  EXPECT_NE(text.find("the context is short"), std::string::npos) << text;

  const auto json = nlohmann::json::parse(JsonOf(report));
  EXPECT_EQ(json["settings"]["machine"], "small");
  ASSERT_EQ(json["figures"].size(), 2u);
  EXPECT_EQ(json["figures"][0]["measured"], 7.25);
  EXPECT_EQ(json["figures"][0]["target"], 10);
  EXPECT_EQ(json["figures"][0]["aim"], 5);
  EXPECT_EQ(json["figures"][0]["met"], "yes");
  EXPECT_FALSE(json["figures"][1].contains("measured"));
  EXPECT_EQ(json["figures"][1]["skipped"], "the context is short");
}

}  // namespace
}  // namespace tern
