#ifndef TOOLS_PROGRESS_H_
#define TOOLS_PROGRESS_H_

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"

namespace tern {

// Hears how far a long piece of work is, now and then, and says whether to go
// on: false makes it end with CANCELLED.
using ProgressFn = absl::FunctionRef<bool(int64_t done, int64_t total)>;

// A bar on standard error, where that is a terminal; otherwise nothing. Not
// thread-safe.
class ProgressBar {
 public:
  // label: such as "writing".   unit: "B" shows binary multiples of bytes,
  // other units plain numbers.
  ProgressBar(std::string label, std::string unit);

  // Clears the line.
  ~ProgressBar();

  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // Shows it when some time has passed since the last. Always returns whether
  // nobody interrupted the process, as ProgressFn asks.
  bool Update(int64_t done, int64_t total);

 private:
  const std::string label_;
  const std::string unit_;
  const bool is_terminal_;
  const absl::Time start_;
  absl::Time shown_;
  bool drawn_ = false;
};

// The line that the bar shows, of 72 columns at most. Pure.
std::string ProgressLine(const std::string& label, const std::string& unit,
                         int64_t done, int64_t total, absl::Duration elapsed);

}  // namespace tern

#endif  // TOOLS_PROGRESS_H_
