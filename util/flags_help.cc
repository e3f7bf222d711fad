#include "util/flags_help.h"

#include <map>
#include <vector>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/reflection.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace tern {
namespace {

constexpr size_t kColumns = 80;
constexpr absl::string_view kIndent = "      ";

std::string Wrap(absl::string_view text) {
  std::string wrapped;
  std::string line(kIndent);
  for (absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    if (line.size() > kIndent.size()) {
      if (line.size() + 1 + word.size() > kColumns) {
        absl::StrAppend(&wrapped, line, "\n");
        line = std::string(kIndent);
      } else {
        line += ' ';
      }
    }
    absl::StrAppend(&line, word);
  }
  absl::StrAppend(&wrapped, line, "\n");
  return wrapped;
}

std::string Heading(const absl::CommandLineFlag& flag) {
  const std::string value = flag.DefaultValue();
  if (flag.IsOfType<bool>()) {
    return absl::StrCat("  --", value == "true" ? "no" : "", flag.Name());
  }
  return absl::StrCat("  --", flag.Name(), "=", value);
}

}  // namespace

std::string FlagsHelp(absl::Span<const absl::string_view> files) {
  std::string help;
  const auto all = absl::GetAllFlags();
  for (absl::string_view file : files) {
    std::map<absl::string_view, const absl::CommandLineFlag*> flags;
    for (const auto& [name, flag] : all) {
      if (absl::EndsWith(flag->Filename(), file)) flags[name] = flag;
    }
    for (const auto& [name, flag] : flags) {
      absl::StrAppend(&help, Heading(*flag), "\n", Wrap(flag->Help()));
    }
  }
  return help;
}

}  // namespace tern
