#include "model/tokenizer_json_splits.h"

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "model/named_splits.h"
#include "model/oniguruma.h"
#include "model/regex.h"
#include "model/unicode_space.h"
#include "util/status_macros.h"
#include "util/utf8.h"

namespace tern {
namespace {

using Behavior = Pretokenizer::Behavior;

// The error of a pattern, with its place in front.
absl::Status AtPlace(const JsonPlace& place, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(place.name(), ": ", status.message()));
}

// {"Regex": "..."} or {"String": "..."}. The text goes to *text when it is to
// be found as it is.
absl::StatusOr<std::unique_ptr<Regex>> ReadPattern(const JsonPlace& place,
                                                   std::string* text) {
  ASSIGN_OR_RETURN(const JsonPlace regex, place.Member("Regex"));
  if (!regex.is_null()) {
    ASSIGN_OR_RETURN(const absl::string_view pattern, regex.String());
    auto compiled = Regex::CompileOniguruma(pattern);
    if (!compiled.ok()) return AtPlace(regex, compiled.status());
    return compiled;
  }
  ASSIGN_OR_RETURN(const JsonPlace string, place.Member("String"));
  ASSIGN_OR_RETURN(const absl::string_view literal, string.String());
  if (literal.empty()) return string.Wrong("is empty");
  text->assign(literal.data(), literal.size());
  std::string escaped;
  for (char c : literal) {
    if (absl::ascii_ispunct(c)) escaped += '\\';
    escaped += c;
  }
  auto compiled = Regex::Compile(escaped);
  if (!compiled.ok()) return AtPlace(string, compiled.status());
  return compiled;
}

absl::StatusOr<Behavior> ReadBehavior(const JsonPlace& place,
                                      absl::string_view otherwise) {
  ASSIGN_OR_RETURN(const absl::string_view name,
                   place.StringOr("behavior", otherwise));
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  return place.Wrong(
      "has a behavior that is not Removed, Isolated, "
      "MergedWithPrevious, MergedWithNext or Contiguous");
}

void AddOwnSplit(absl::string_view pattern, Behavior behavior, bool invert,
                 Pretokenizer* pretokenizer) {
  pretokenizer->AddSplit(*Regex::Compile(pattern), behavior, invert);
}

absl::Status ReadByteLevel(const JsonPlace& place, Pretokenizer* pretokenizer) {
  if (pretokenizer->is_byte_level()) {
    return place.Unknown("is a second ByteLevel step");
  }
  ASSIGN_OR_RETURN(const bool adds_space,
                   place.BoolOr("add_prefix_space", true));
  ASSIGN_OR_RETURN(const bool uses_regex, place.BoolOr("use_regex", true));
  if (adds_space) pretokenizer->AddSpacePrefix();
  if (uses_regex) {
    pretokenizer->AddSplit(*Regex::CompileOniguruma(kGpt2Pattern),
                           Behavior::kIsolated, /*invert=*/false);
  }
  pretokenizer->AddByteLevel();
  return absl::OkStatus();
}

absl::Status ReadMetaspace(const JsonPlace& place, Pretokenizer* pretokenizer) {
  if (pretokenizer->is_byte_level()) {
    return place.Unknown("is a Metaspace step behind a ByteLevel step");
  }
  ASSIGN_OR_RETURN(const absl::string_view replacement,
                   place.StringOr("replacement", kSpaceMark));
  size_t size = 0;
  if (!replacement.empty()) NextCharacter(replacement, &size);
  if (size == 0 || size != replacement.size()) {
    return place.Wrong("has a replacement that is not one character");
  }
  // Older files say add_prefix_space, newer ones prepend_scheme, some both.
  ASSIGN_OR_RETURN(const bool adds_space,
                   place.BoolOr("add_prefix_space", true));
  ASSIGN_OR_RETURN(
      const absl::string_view scheme,
      place.StringOr("prepend_scheme", adds_space ? "always" : "never"));
  Pretokenizer::Prefix prefix;
  if (scheme == "always") {
    prefix = Pretokenizer::Prefix::kAlways;
  } else if (scheme == "first") {
    prefix = Pretokenizer::Prefix::kFirst;
  } else if (scheme == "never") {
    prefix = Pretokenizer::Prefix::kNever;
  } else {
    return place.Wrong(
        "has a prepend_scheme that is not always, first or never");
  }
  if (!adds_space && prefix != Pretokenizer::Prefix::kNever) {
    return place.Wrong(
        "has a prepend_scheme that contradicts its add_prefix_space");
  }
  pretokenizer->AddMetaspace(replacement, prefix);
  ASSIGN_OR_RETURN(const bool splits, place.BoolOr("split", true));
  if (splits) {
    const std::string pattern =
        replacement.size() == 1 && absl::ascii_ispunct(replacement[0])
            ? absl::StrCat("\\", replacement)
            : std::string(replacement);
    AddOwnSplit(pattern, Behavior::kMergedWithNext, false, pretokenizer);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadJsonPretokenizer(const JsonPlace& place,
                                  Pretokenizer* pretokenizer) {
  if (place.is_null()) return absl::OkStatus();
  if (pretokenizer->n_steps() >= Pretokenizer::kStepsMax) {
    return place.Wrong(absl::StrCat("is a step too many; at most ",
                                    Pretokenizer::kStepsMax, " are allowed"));
  }
  ASSIGN_OR_RETURN(const absl::string_view type, place.Type());
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const JsonPlace list, place.Member("pretokenizers"));
    ASSIGN_OR_RETURN(const size_t n, list.ArraySize());
    for (size_t i = 0; i < n; ++i) {
      RETURN_IF_ERROR(ReadJsonPretokenizer(list.Element(i), pretokenizer));
    }
    return absl::OkStatus();
  }
  if (type == "Split") {
    ASSIGN_OR_RETURN(const JsonPlace pattern, place.Member("pattern"));
    std::string literal;
    ASSIGN_OR_RETURN(std::unique_ptr<Regex> regex,
                     ReadPattern(pattern, &literal));
    ASSIGN_OR_RETURN(const Behavior behavior, ReadBehavior(place, "Isolated"));
    ASSIGN_OR_RETURN(const bool invert, place.BoolOr("invert", false));
    pretokenizer->AddSplit(std::move(regex), behavior, invert);
    return absl::OkStatus();
  }
  if (type == "ByteLevel") return ReadByteLevel(place, pretokenizer);
  if (type == "Metaspace") return ReadMetaspace(place, pretokenizer);
  if (type == "Digits") {
    ASSIGN_OR_RETURN(const bool is_each,
                     place.BoolOr("individual_digits", false));
    AddOwnSplit(R"(\p{N})",
                is_each ? Behavior::kIsolated : Behavior::kContiguous, false,
                pretokenizer);
    return absl::OkStatus();
  }
  if (type == "Punctuation") {
    ASSIGN_OR_RETURN(const Behavior behavior, ReadBehavior(place, "Isolated"));
    AddOwnSplit(R"([\p{P}$+<=>^`|~])", behavior, false, pretokenizer);
    return absl::OkStatus();
  }
  if (type == "Whitespace") {
    // The two joiners are part of words here.
    AddOwnSplit("[" TERN_REGEX_WORD R"(\x{200c}\x{200d}]+|[^)" TERN_REGEX_WORD
                R"(\x{200c}\x{200d})" TERN_REGEX_SPACES "]+",
                Behavior::kRemoved, /*invert=*/true, pretokenizer);
    return absl::OkStatus();
  }
  if (type == "WhitespaceSplit") {
    AddOwnSplit("[" TERN_REGEX_SPACES "]", Behavior::kRemoved, false,
                pretokenizer);
    return absl::OkStatus();
  }
  return place.Unknown(absl::StrCat(
      "is of type '", type.substr(0, 64),
      "'; Tern knows Sequence, Split, ByteLevel, Metaspace, Digits, "
      "Punctuation, Whitespace and WhitespaceSplit"));
}

absl::Status ReadJsonNormalizer(const JsonPlace& place,
                                TextNormalizer* normalizer) {
  if (place.is_null()) return absl::OkStatus();
  if (normalizer->n_steps() >= TextNormalizer::kStepsMax) {
    return place.Wrong(absl::StrCat("is a step too many; at most ",
                                    TextNormalizer::kStepsMax, " are allowed"));
  }
  ASSIGN_OR_RETURN(const absl::string_view type, place.Type());
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const JsonPlace list, place.Member("normalizers"));
    ASSIGN_OR_RETURN(const size_t n, list.ArraySize());
    for (size_t i = 0; i < n; ++i) {
      RETURN_IF_ERROR(ReadJsonNormalizer(list.Element(i), normalizer));
    }
    return absl::OkStatus();
  }
  if (type == "Prepend") {
    ASSIGN_OR_RETURN(const JsonPlace prepend, place.Member("prepend"));
    ASSIGN_OR_RETURN(const absl::string_view text, prepend.String());
    normalizer->AddPrepend(text);
    return absl::OkStatus();
  }
  if (type == "Replace") {
    ASSIGN_OR_RETURN(const JsonPlace pattern, place.Member("pattern"));
    std::string literal;
    ASSIGN_OR_RETURN(std::unique_ptr<Regex> regex,
                     ReadPattern(pattern, &literal));
    ASSIGN_OR_RETURN(const JsonPlace content, place.Member("content"));
    ASSIGN_OR_RETURN(const absl::string_view to, content.String());
    if (literal.empty()) {
      normalizer->AddReplaceMatches(std::move(regex), to);
    } else {
      normalizer->AddReplace(literal, to);
    }
    return absl::OkStatus();
  }
  if (type == "Strip") {
    ASSIGN_OR_RETURN(const bool left, place.BoolOr("strip_left", false));
    ASSIGN_OR_RETURN(const bool right, place.BoolOr("strip_right", false));
    normalizer->AddStrip(left, right);
    return absl::OkStatus();
  }
  if (type == "NFC") {
    normalizer->AddNormalFormC();
    return absl::OkStatus();
  }
  return place.Unknown(
      absl::StrCat("is of type '", type.substr(0, 64),
                   "'; Tern knows Sequence, Prepend, Replace, Strip and NFC"));
}

}  // namespace tern
