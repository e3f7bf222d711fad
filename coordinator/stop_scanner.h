#ifndef COORDINATOR_STOP_SCANNER_H_
#define COORDINATOR_STOP_SCANNER_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace tern {

// Finds the first stop string in a text that comes in pieces, and holds back
// text that may turn out to be the start of one.
//
// First is the stop string whose last byte comes first; of several that end at
// the same byte, the longest. So the result does not depend on how the text was
// cut into pieces. Not thread-safe.
class StopScanner {
 public:
  // Empty strings are ignored.
  explicit StopScanner(std::vector<std::string> stop_strings);

  // Takes the next piece and appends to *out what can be shown of the text so
  // far. True when a stop string was found: *out then ends right before it, and
  // what came after it is dropped.
  // REQUIRES: no stop string was found before.
  bool Append(absl::string_view piece, std::string* out);

  // The text is over: appends what was held back to *out.
  void Finish(std::string* out);

  // The stop string found; empty if none was.
  const std::string& found() const { return found_; }

 private:
  const std::vector<std::string> stop_strings_;
  std::string held_;  // a proper prefix of a stop string, or empty
  std::string found_;
};

}  // namespace tern

#endif  // COORDINATOR_STOP_SCANNER_H_
