#include "cli/arguments.h"

#include <algorithm>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/reflection.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace tern {
namespace {

absl::CommandLineFlag* Find(absl::string_view name,
                            absl::Span<const absl::string_view> files) {
  absl::CommandLineFlag* flag = absl::FindCommandLineFlag(name);
  if (flag == nullptr) return nullptr;
  const std::string defined_in = flag->Filename();
  const bool ours = std::any_of(
      files.begin(), files.end(),
      [&](absl::string_view file) { return absl::EndsWith(defined_in, file); });
  return ours ? flag : nullptr;
}

}  // namespace

absl::StatusOr<Arguments> ParseArguments(
    absl::Span<const std::string> words,
    absl::Span<const absl::string_view> flag_files) {
  Arguments arguments;
  for (size_t i = 0; i < words.size(); ++i) {
    absl::string_view word = words[i];
    if (word == "--") {
      arguments.positional.insert(arguments.positional.end(),
                                  words.begin() + i + 1, words.end());
      break;
    }
    if (word == "-" || !absl::ConsumePrefix(&word, "-")) {
      arguments.positional.push_back(words[i]);
      continue;
    }
    absl::ConsumePrefix(&word, "-");
    const size_t equals = word.find('=');
    absl::string_view name = word.substr(0, equals);
    bool has_value = equals != absl::string_view::npos;
    std::string value(has_value ? word.substr(equals + 1) : "");
    if ((name == "help" || name == "h") && !has_value) {
      arguments.help = true;
      continue;
    }
    absl::CommandLineFlag* flag = Find(name, flag_files);
    if (flag == nullptr && !has_value && absl::ConsumePrefix(&name, "no")) {
      flag = Find(name, flag_files);
      if (flag != nullptr && !flag->IsOfType<bool>()) flag = nullptr;
      has_value = true;
      value = "false";
    }
    if (flag == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(
          "there is no flag ", words[i].substr(0, words[i].find('=')),
          "; a text that starts with a dash goes after \"--\""));
    }
    if (!has_value && flag->IsOfType<bool>()) {
      value = "true";
    } else if (!has_value) {
      if (++i == words.size()) {
        return absl::InvalidArgumentError(
            absl::StrCat("--", name, " needs a value"));
      }
      value = words[i];
    }
    std::string error;
    if (!flag->ParseFrom(value, &error)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--", name, "=", value, ": ",
          absl::StripTrailingAsciiWhitespace(
              error.empty() ? "not a value of this flag" : error)));
    }
    arguments.given[std::string(name)].push_back(value);
  }
  return arguments;
}

}  // namespace tern
