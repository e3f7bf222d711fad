#include "coordinator/stop_scanner.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "util/logging.h"

namespace tern {
namespace {

std::vector<std::string> WithoutEmpty(std::vector<std::string> strings) {
  strings.erase(std::remove(strings.begin(), strings.end(), std::string()),
                strings.end());
  return strings;
}

}  // namespace

StopScanner::StopScanner(std::vector<std::string> stop_strings)
    : stop_strings_(WithoutEmpty(std::move(stop_strings))) {}

bool StopScanner::Append(absl::string_view piece, std::string* out) {
  CHECK(found_.empty());
  held_.append(piece.data(), piece.size());
  size_t first_end = std::string::npos;
  for (const std::string& stop : stop_strings_) {
    const size_t begin = held_.find(stop);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stop.size();
    if (end < first_end || (end == first_end && stop.size() > found_.size())) {
      first_end = end;
      found_ = stop;
    }
  }
  if (!found_.empty()) {
    out->append(held_, 0, first_end - found_.size());
    held_.clear();
    return true;
  }

  // The longest end of the text that is the start of a stop string stays.
  size_t n_held = 0;
  for (const std::string& stop : stop_strings_) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > n_held; --n) {
      if (absl::EndsWith(held_, absl::string_view(stop).substr(0, n))) {
        n_held = n;
      }
    }
  }
  out->append(held_, 0, held_.size() - n_held);
  held_.erase(0, held_.size() - n_held);
  return false;
}

void StopScanner::Finish(std::string* out) {
  out->append(held_);
  held_.clear();
}

}  // namespace tern
