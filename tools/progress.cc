#include "tools/progress.h"

#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "cli/text_table.h"
#include "tools/interrupt.h"

namespace tern {
namespace {

constexpr absl::Duration kRedraw = absl::Milliseconds(100);
constexpr int kBarColumns = 24;

std::string Amount(const std::string& unit, int64_t n) {
  return unit == "B" ? FormatBytes(n) : absl::StrCat(n, " ", unit);
}

}  // namespace

std::string ProgressLine(const std::string& label, const std::string& unit,
                         int64_t done, int64_t total, absl::Duration elapsed) {
  const double share =
      total > 0 ? std::min(1.0, static_cast<double>(done) / total) : 0.0;
  const int filled = static_cast<int>(share * kBarColumns);
  const double seconds = absl::ToDoubleSeconds(elapsed);
  std::string line =
      absl::StrFormat("%s [%s%s] %3.0f%%", label, std::string(filled, '#'),
                      std::string(kBarColumns - filled, '.'), 100 * share);
  if (seconds > 0 && done > 0) {
    absl::StrAppend(&line, "  ",
                    Amount(unit, static_cast<int64_t>(done / seconds)), "/s");
    if (done < total) {
      absl::StrAppend(&line, "  ",
                      absl::FormatDuration(absl::Trunc(
                          elapsed * ((1 - share) / share), absl::Seconds(1))),
                      " left");
    }
  }
  return line.substr(0, 72);
}

ProgressBar::ProgressBar(std::string label, std::string unit)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      is_terminal_(isatty(STDERR_FILENO) != 0),
      start_(absl::Now()),
      shown_(start_) {}

ProgressBar::~ProgressBar() {
  if (drawn_) std::cerr << "\r\033[K" << std::flush;
}

bool ProgressBar::Update(int64_t done, int64_t total) {
  const absl::Time now = absl::Now();
  if (is_terminal_ && now - shown_ >= kRedraw) {
    shown_ = now;
    drawn_ = true;
    std::cerr << "\r\033[K"
              << ProgressLine(label_, unit_, done, total, now - start_)
              << std::flush;
  }
  return !Interrupted();
}

}  // namespace tern
