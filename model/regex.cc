#include "model/regex.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/oniguruma.h"
#include "util/logging.h"
#include "util/status_macros.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace tern {
namespace {

// No pattern of a tokenizer comes near; compiling takes memory in proportion.
constexpr size_t kPatternBytesMax = 1 << 16;

// A run of spaces makes the matcher step back over it, once for each of two
// alternatives; nothing else in a tokenizer's pattern does.
constexpr size_t kStepsPerByte = 16;
constexpr size_t kStepsMin = 10000;

std::string ErrorText(int error) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(error, text, sizeof(text));
  return std::string(reinterpret_cast<const char*>(text));
}

}  // namespace

struct Regex::Code {
  pcre2_code* code;
  bool is_jit;

  ~Code() { pcre2_code_free(code); }
};

struct Regex::Room::Parts {
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);

  Parts() { CHECK(match != nullptr && context != nullptr); }
  ~Parts() {
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
  }
};

Regex::Room::Room() : parts_(std::make_unique<Parts>()) {}

Regex::Room::~Room() = default;

absl::StatusOr<std::unique_ptr<Regex>> Regex::Compile(
    absl::string_view pattern) {
  if (pattern.size() > kPatternBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a pattern has ", pattern.size(), " bytes; at most ",
                     kPatternBytesMax, " are allowed"));
  }
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  CHECK(context != nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  // Of groups within groups: their code runs on the stack.
  pcre2_set_parens_nest_limit(context, 50);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
      &offset, context);
  pcre2_compile_context_free(context);
  if (code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("the pattern ", pattern, " is wrong at offset ", offset,
                     ": ", ErrorText(error)));
  }
  // Where no memory may be made executable this fails, and matching goes on
  // without it, slower.
  const bool is_jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
  return std::unique_ptr<Regex>(
      new Regex(std::unique_ptr<const Code>(new Code{code, is_jit})));
}

absl::StatusOr<std::unique_ptr<Regex>> Regex::CompileOniguruma(
    absl::string_view pattern) {
  if (pattern.size() > kPatternBytesMax) return Compile(pattern);  // refuses
  ASSIGN_OR_RETURN(const std::string translated, TranslateOniguruma(pattern));
  return Compile(translated);
}

Regex::Regex(std::unique_ptr<const Code> code) : code_(std::move(code)) {}

Regex::~Regex() = default;

Regex::Walk::Walk(const Regex* regex, absl::string_view text, Room* room)
    : regex_(regex), text_(text), room_(room->parts_.get()) {
  pcre2_set_match_limit(room_->context,
                        static_cast<uint32_t>(std::min<size_t>(
                            kStepsMin + kStepsPerByte * text.size(),
                            std::numeric_limits<uint32_t>::max())));
}

absl::StatusOr<bool> Regex::Walk::Next(Match* found) {
  // PCRE2 takes no null pointer in older versions.
  const PCRE2_SPTR subject =
      reinterpret_cast<PCRE2_SPTR>(text_.empty() ? "" : text_.data());
  pcre2_code* const code = regex_->code_->code;
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(room_->match);
  while (pos_ <= text_.size()) {
    // The direct way in saves checks that cost as much as a short match.
    int result =
        regex_->code_->is_jit
            ? pcre2_jit_match(code, subject, text_.size(), pos_,
                              PCRE2_NO_UTF_CHECK, room_->match, room_->context)
            : pcre2_match(code, subject, text_.size(), pos_, PCRE2_NO_UTF_CHECK,
                          room_->match, room_->context);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) {
      // Compiled code has 32 KiB of stack; the interpreter takes the heap.
      result = pcre2_match(code, subject, text_.size(), pos_,
                           PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, room_->match,
                           room_->context);
    }
    if (result == PCRE2_ERROR_NOMATCH) {
      pos_ = text_.size() + 1;
      return false;
    }
    if (result < 0) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the text at offset ", pos_,
                       " cannot be split into words within the limits (PCRE2: ",
                       ErrorText(result), ")"));
    }
    // Only \K, which no pattern has, could make a match begin elsewhere.
    CHECK(bounds[0] >= pos_ && bounds[1] >= bounds[0]);
    const Match match = {bounds[0], bounds[1]};
    const bool is_empty = match.begin == match.end;
    const bool is_repeated = is_empty && match.begin == last_end_;
    pos_ = match.end;
    if (is_empty) {
      // One whole character further.
      ++pos_;
      while (pos_ < text_.size() &&
             (static_cast<uint8_t>(text_[pos_]) & 0xc0) == 0x80) {
        ++pos_;
      }
    }
    if (is_repeated) continue;
    last_end_ = match.end;
    *found = match;
    return true;
  }
  return false;
}

}  // namespace tern
