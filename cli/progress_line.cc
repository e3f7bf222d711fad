#include "cli/progress_line.h"

#include <unistd.h>

#include <iostream>

namespace tern {
namespace {

// Goes to the start of the line and empties it.
constexpr char kEmptyLine[] = "\r\033[K";

}  // namespace

ProgressLine::ProgressLine() : on_terminal_(isatty(STDERR_FILENO) == 1) {}

void ProgressLine::Show(const std::string& line) {
  if (line == shown_ && (visible_ || !on_terminal_)) return;
  shown_ = line;
  visible_ = true;
  if (on_terminal_) {
    std::cerr << kEmptyLine << line << std::flush;
  } else {
    std::cerr << line << std::endl;
  }
}

void ProgressLine::Clear() {
  if (on_terminal_ && visible_) std::cerr << kEmptyLine << std::flush;
  visible_ = false;
}

}  // namespace tern
