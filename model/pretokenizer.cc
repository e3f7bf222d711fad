#include "model/pretokenizer.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "util/logging.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace tern {
namespace {

// The Unicode property White_Space. PCRE2's own \s has U+180E too, which has
// not been a space since Unicode 6.3, nor is one to Llama's tokenizer.
#define TERN_SPACES                                                        \
  R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f})" \
  R"(\x{205f}\x{3000})"

// In the order of the published pattern, each alternative first come, first
// served. (?i:) ignores case as Unicode has it, so that U+017F, the long s,
// counts as an s.
constexpr char kPattern[] = R"((?i:'s|'t|'re|'ve|'m|'ll|'d))"
                            R"(|[^\r\n\p{L}\p{N}]?\p{L}+)"
                            R"(|\p{N}{1,3})"
                            R"(| ?[^)" TERN_SPACES R"(\p{L}\p{N}]+[\r\n]*)"
                            R"(|[)" TERN_SPACES R"(]*[\r\n]+)"
                            R"(|[)" TERN_SPACES R"(]+(?![^)" TERN_SPACES R"(]))"
                            R"(|[)" TERN_SPACES R"(]+)";

// A run of spaces makes the matcher step back over it, once for each of two
// alternatives; nothing else does.
constexpr size_t kStepsPerByte = 16;
constexpr size_t kStepsMin = 10000;

}  // namespace

struct Pretokenizer::Pattern {
  pcre2_code* code;

  ~Pattern() { pcre2_code_free(code); }
};

Pretokenizer::Pretokenizer()
    : pattern_([] {
        int error = 0;
        PCRE2_SIZE offset = 0;
        pcre2_code* code = pcre2_compile(
            reinterpret_cast<PCRE2_SPTR>(kPattern), PCRE2_ZERO_TERMINATED,
            PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &error, &offset, nullptr);
        CHECK(code != nullptr) << "error " << error << " at " << offset;
        // Where no memory may be made executable this fails, and matching goes
        // on without it, slower.
        pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
        return new Pattern{code};
      }()) {}

Pretokenizer::~Pretokenizer() = default;

absl::Status Pretokenizer::Split(
    absl::string_view text,
    absl::FunctionRef<void(absl::string_view)> take) const {
  if (text.empty()) return absl::OkStatus();
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  const auto cleanup = absl::MakeCleanup([match, context] {
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
  });
  CHECK(match != nullptr && context != nullptr);
  pcre2_set_match_limit(context, static_cast<uint32_t>(std::min<size_t>(
                                     kStepsMin + kStepsPerByte * text.size(),
                                     std::numeric_limits<uint32_t>::max())));
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(match);
  size_t pos = 0;
  while (pos < text.size()) {
    const int result =
        pcre2_match(pattern_->code, reinterpret_cast<PCRE2_SPTR>(text.data()),
                    text.size(), pos, PCRE2_NO_UTF_CHECK, match, context);
    if (result < 0) {
      // Every character belongs to some alternative.
      CHECK(result != PCRE2_ERROR_NOMATCH) << "at offset " << pos;
      return absl::ResourceExhaustedError(
          absl::StrCat("the text at offset ", pos,
                       " cannot be split into words within the limits "
                       "(PCRE2 error ",
                       result, ")"));
    }
    CHECK(bounds[1] > pos);
    take(text.substr(pos, bounds[1] - pos));
    pos = bounds[1];
  }
  return absl::OkStatus();
}

}  // namespace tern
