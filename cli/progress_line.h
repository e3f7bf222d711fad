#ifndef CLI_PROGRESS_LINE_H_
#define CLI_PROGRESS_LINE_H_

#include <string>

namespace tern {

// Shows one line on stderr, in place of the one before where that is a
// terminal; elsewhere each on a line of its own. Not thread-safe.
class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine() { Clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  bool on_terminal() const { return on_terminal_; }

  // Does nothing when the line is the one shown.
  void Show(const std::string& line);

  // Takes the line off a terminal, so that other things can be said.
  void Clear();

  // The line shown last.
  const std::string& shown() const { return shown_; }

 private:
  const bool on_terminal_;
  std::string shown_;
  bool visible_ = false;
};

}  // namespace tern

#endif  // CLI_PROGRESS_LINE_H_
