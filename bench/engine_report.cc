#include "bench/engine_report.h"

#include <fstream>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/text_table.h"
#include "nlohmann/json.hpp"

namespace tern {
namespace {

std::string Number(double value, const EngineFigure& figure) {
  return absl::StrFormat("%.*f", figure.decimals, value);
}

std::string WithUnit(double value, const EngineFigure& figure) {
  return absl::StrCat(Number(value, figure), figure.unit.empty() ? "" : " ",
                      figure.unit);
}

bool Reaches(const EngineFigure& figure, double wanted) {
  return figure.more_is_better ? figure.measured >= wanted
                               : figure.measured <= wanted;
}

std::string WantedOf(const EngineFigure& figure) {
  if (!figure.target.has_value()) return "-";
  std::string text = absl::StrCat(figure.more_is_better ? ">= " : "<= ",
                                  Number(*figure.target, figure));
  if (figure.aim.has_value()) {
    absl::StrAppend(&text, " (aim ", Number(*figure.aim, figure), ")");
  }
  return text;
}

}  // namespace

std::string VerdictOf(const EngineFigure& figure) {
  if (!figure.skipped.empty() || !figure.target.has_value()) return "-";
  if (!Reaches(figure, *figure.target)) return "no";
  return figure.aim.has_value() && Reaches(figure, *figure.aim) ? "aim" : "yes";
}

std::string LineOf(const EngineFigure& figure) {
  const std::string begin = absl::StrCat(figure.row, ": ", figure.what, ": ");
  if (!figure.skipped.empty()) {
    return absl::StrCat(begin, "skipped: ", figure.skipped);
  }
  return absl::StrCat(begin, WithUnit(figure.measured, figure), ", wanted ",
                      WantedOf(figure));
}

std::string TextOf(const EngineReport& report) {
  std::string text;
  for (const auto& [name, value] : report.settings) {
    absl::StrAppendFormat(&text, "%-12s%s\n", name, value);
  }
  std::vector<std::vector<std::string>> table = {
      {"row", "figure", "measured", "wanted", "met", "limit"}};
  for (const EngineFigure& figure : report.figures) {
    table.push_back(
        {figure.row, figure.what,
         figure.skipped.empty() ? WithUnit(figure.measured, figure) : "skipped",
         WantedOf(figure), VerdictOf(figure),
         figure.limit.empty() ? "-" : figure.limit});
  }
  absl::StrAppend(&text, "\n", TextTable(table), "\n");
  for (const EngineFigure& figure : report.figures) {
    const std::string& more =
        figure.skipped.empty() ? figure.detail : figure.skipped;
    if (more.empty()) continue;
    absl::StrAppend(&text, figure.row, ", ", figure.what, ": ", more, "\n");
  }
  return text;
}

std::string JsonOf(const EngineReport& report) {
  nlohmann::ordered_json json;
  json["settings"] = nlohmann::ordered_json::object();
  for (const auto& [name, value] : report.settings) {
    json["settings"][name] = value;
  }
  json["figures"] = nlohmann::ordered_json::array();
  for (const EngineFigure& figure : report.figures) {
    nlohmann::ordered_json object = {
        {"row", figure.row},        {"what", figure.what},
        {"unit", figure.unit},      {"more_is_better", figure.more_is_better},
        {"met", VerdictOf(figure)}, {"limit", figure.limit},
        {"detail", figure.detail},  {"skipped", figure.skipped}};
    if (figure.skipped.empty()) object["measured"] = figure.measured;
    if (figure.target.has_value()) object["target"] = *figure.target;
    if (figure.aim.has_value()) object["aim"] = *figure.aim;
    json["figures"].push_back(std::move(object));
  }
  return json.dump(2) + "\n";
}

absl::Status CheckJsonFile(const std::string& path) {
  if (path.empty() || std::ofstream(path, std::ios::app)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--json cannot be written: ", path));
}

absl::Status Publish(const EngineReport& report, const std::string& path) {
  std::cout << TextOf(report);
  if (path.empty()) return absl::OkStatus();
  std::ofstream file(path, std::ios::trunc);
  file << JsonOf(report);
  file.close();
  if (file) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot write ", path));
}

}  // namespace tern
