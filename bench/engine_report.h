#ifndef BENCH_ENGINE_REPORT_H_
#define BENCH_ENGINE_REPORT_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/optional.h"

namespace tern {

// One figure of the engine, beside what is wanted of it.
struct EngineFigure {
  std::string row;      // of --rows
  std::string what;     // for people
  std::string unit;     // may be empty
  int decimals = 2;     // shown to people
  double measured = 0;  // meaningless when `skipped`
  bool more_is_better = true;
  // What it has to reach, and what it should. Absent: nothing is asked of it.
  absl::optional<double> target = {};
  absl::optional<double> aim = {};
  // What the machine or the arrangement allows at best, taken in the same run,
  // and what `measured` is made of. For people; may be empty.
  std::string limit = {};
  std::string detail = {};
  // Why it was not measured, and how it could be; empty when it was.
  std::string skipped = {};
};

// "aim", "yes" or "no"; "-" for a figure that nothing is asked of or that was
// not measured.
std::string VerdictOf(const EngineFigure& figure);

// All that a run of the engine's benchmark found.
struct EngineReport {
  std::vector<std::pair<std::string, std::string>> settings;  // for people
  std::vector<EngineFigure> figures;
};

// One figure as a line for people.
std::string LineOf(const EngineFigure& figure);

// As tables for a terminal.
std::string TextOf(const EngineReport& report);

// As one JSON object: `settings`, and `figures`, a list of objects with the
// fields of EngineFigure and `met`, the verdict.
std::string JsonOf(const EngineReport& report);

// Whether a file for JSON can be written, asked before the long work begins.
// INVALID_ARGUMENT when not; OK for an empty path.
absl::Status CheckJsonFile(const std::string& path);

// Prints the tables, and writes the JSON unless `path` is empty. UNAVAILABLE
// when it cannot be written.
absl::Status Publish(const EngineReport& report, const std::string& path);

}  // namespace tern

#endif  // BENCH_ENGINE_REPORT_H_
