#include "tools/synthetic_vocabulary.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace tern {
namespace {

constexpr int32_t kNormalToken = 1;
constexpr int32_t kControlToken = 3;
constexpr int kControlTokens = 3;

// U+0120, in which byte-level BPE spells a space.
constexpr char kSpace[] = "\xc4\xa0";

// A byte as a character that can be seen: itself where it is one of Latin-1,
// else the next from U+0100 on.
std::vector<std::string> ByteSpellings() {
  std::vector<std::string> spellings;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool is_seen =
        (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
    const int code = is_seen ? byte : next++;
    if (code < 0x80) {
      spellings.emplace_back(1, static_cast<char>(code));
    } else {
      spellings.push_back({static_cast<char>(0xc0 | code >> 6),
                           static_cast<char>(0x80 | (code & 0x3f))});
    }
  }
  return spellings;
}

// Pairs, "_" for a space; each half is a letter or the result of an earlier
// one.
constexpr std::pair<absl::string_view, absl::string_view> kMerges[] = {
    {"_", "t"},   {"_", "a"},  {"h", "e"},   {"i", "n"},   {"r", "e"},
    {"_t", "he"}, {"o", "n"},  {"e", "r"},   {"_", "s"},   {"_", "w"},
    {"a", "t"},   {"_", "o"},  {"e", "n"},   {"n", "d"},   {"i", "t"},
    {"i", "s"},   {"o", "r"},  {"e", "s"},   {"_", "c"},   {"_", "b"},
    {"e", "d"},   {"_", "f"},  {"in", "g"},  {"_", "p"},   {"o", "u"},
    {"_a", "nd"}, {"a", "l"},  {"a", "r"},   {"_t", "o"},  {"_", "m"},
    {"_o", "f"},  {"_", "in"}, {"_", "d"},   {"_", "h"},   {"l", "l"},
    {"o", "m"},   {"a", "s"},  {"l", "e"},   {"i", "c"},   {"_t", "h"},
    {"n", "t"},   {"e", "nt"}, {"i", "on"},  {"v", "e"},   {"_th", "at"},
    {"_", "it"},  {"_b", "e"}, {"_w", "as"}, {"_f", "or"}, {"r", "o"},
    {"_", "is"},
};

std::string Spell(absl::string_view half) {
  std::string out;
  for (char c : half) {
    if (c == '_') {
      out += kSpace;
    } else {
      out += c;
    }
  }
  return out;
}

constexpr absl::string_view kConsonants = "bcdfghjklmnpqrstvwxyz";
constexpr absl::string_view kVowels = "aeiou";
constexpr int kSyllables = 21 * 5;
constexpr int kWords = kSyllables * kSyllables * kSyllables;

std::string Word(int i) {
  std::string word = kSpace;
  // Neighbours should not all begin alike: the first syllable counts fastest.
  for (int k = 0; k < 3; ++k) {
    const int syllable = i % kSyllables;
    i /= kSyllables;
    word += kConsonants[syllable / 5];
    word += kVowels[syllable % 5];
  }
  return word;
}

}  // namespace

absl::StatusOr<SyntheticVocabulary> MakeSyntheticVocabulary(int size) {
  if (size < kSyntheticVocabularyMin || size > kWords) {
    return absl::InvalidArgumentError(
        absl::StrCat("a vocabulary of ", size, " tokens; synthetic ones have ",
                     kSyntheticVocabularyMin, " to ", kWords));
  }
  SyntheticVocabulary vocabulary;
  std::vector<std::string>& tokens = vocabulary.tokens;
  const size_t n_text = size - kControlTokens;
  tokens = ByteSpellings();
  for (const auto& merge : kMerges) {
    if (tokens.size() == n_text) break;
    const std::string left = Spell(merge.first), right = Spell(merge.second);
    vocabulary.merges.push_back(absl::StrCat(left, " ", right));
    tokens.push_back(left + right);
  }
  for (int i = 0; tokens.size() < n_text; ++i) tokens.push_back(Word(i));
  vocabulary.types.assign(n_text, kNormalToken);
  vocabulary.eot_id = static_cast<int32_t>(n_text);
  vocabulary.bos_id = vocabulary.eot_id + 1;
  vocabulary.eos_id = vocabulary.eot_id + 2;
  tokens.insert(tokens.end(),
                {"<|eot_id|>", "<|begin_of_text|>", "<|end_of_text|>"});
  vocabulary.types.resize(tokens.size(), kControlToken);
  return vocabulary;
}

}  // namespace tern
