#include "cli/text_input.h"

#include <unistd.h>

#include <fstream>
#include <iostream>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace tern {

absl::StatusOr<std::string> ReadText(const Arguments& arguments,
                                     const std::string& path) {
  const auto& words = arguments.positional;
  if (words.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "one text was expected, not ", words.size(), "; put quotes around it"));
  }
  if (!words.empty() && !path.empty()) {
    return absl::InvalidArgumentError(
        "the text is given twice, as an argument and as a file");
  }
  std::string text;
  if (!words.empty() && words[0] != "-") {
    text = words[0];
  } else if (!path.empty()) {
    std::ifstream file(path, std::ios::binary);
    text.assign(std::istreambuf_iterator<char>(file), {});
    if (!file) {
      return absl::InvalidArgumentError(
          absl::StrCat("cannot read the file ", path));
    }
  } else {
    if (isatty(STDIN_FILENO) == 1) {
      std::cerr << "Type the text; Ctrl-D on a line of its own ends it."
                << std::endl;
    }
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
  }
  if (text.empty()) return absl::InvalidArgumentError("the text is empty");
  return text;
}

}  // namespace tern
