#include "model/piece_encoder.h"

#include <string>

#include "util/logging.h"
#include "util/utf8.h"

namespace tern {
namespace {

// The character that `bytes` are, or -1 if they are not exactly one.
int32_t OneCharacter(absl::string_view bytes) {
  if (bytes.empty()) return -1;
  size_t pos = 0;
  const int32_t character = NextCharacter(bytes, &pos);
  return pos == bytes.size() ? character : -1;
}

int32_t FirstCharacter(absl::string_view bytes) {
  size_t pos = 0;
  return NextCharacter(bytes, &pos);
}

int32_t LastCharacter(absl::string_view bytes) {
  size_t pos = bytes.size() - 1;
  while ((static_cast<uint8_t>(bytes[pos]) & 0xc0) == 0x80) --pos;
  return NextCharacter(bytes, &pos);
}

}  // namespace

bool PieceEncoder::AddToken(absl::string_view bytes, int32_t id) {
  CHECK(!bytes.empty() && id >= 0);
  if (!ids_.emplace(bytes, id).second) return false;
  if (options_.is_byte_level) {
    if (bytes.size() == 1) byte_tokens_[static_cast<uint8_t>(bytes[0])] = id;
    return true;
  }
  const int32_t character = OneCharacter(bytes);
  if (character >= 128) {
    characters_.emplace(character, id);
  } else if (character >= 0) {
    ascii_[character] = id;
  }
  return true;
}

int PieceEncoder::FirstByteWithoutToken() const {
  for (int byte = 0; byte < 256; ++byte) {
    const bool is_needed = !options_.is_byte_level || byte == '\t' ||
                           byte == '\n' || byte == '\r' ||
                           (byte >= 0x20 && byte <= 0xf0 && byte != 0x7f &&
                            byte != 0xc0 && byte != 0xc1);
    if (is_needed && byte_tokens_[byte] < 0) return byte;
  }
  return -1;
}

void PieceEncoder::Reserve(size_t n_tokens, size_t n_merges) {
  ids_.reserve(n_tokens);
  merges_.Reserve(n_merges);
}

int32_t PieceEncoder::Find(absl::string_view bytes) const {
  const auto it = ids_.find(bytes);
  return it == ids_.end() ? -1 : it->second;
}

// Characters that are no tokens are symbols below zero.
PieceEncoder::Symbol PieceEncoder::SymbolOf(int32_t character) const {
  if (character < 128) {
    return ascii_[character] >= 0 ? ascii_[character] : ~character;
  }
  const auto it = characters_.find(character);
  return it == characters_.end() ? ~character : it->second;
}

bool PieceEncoder::FindSymbol(absl::string_view bytes, Symbol* symbol) const {
  *symbol = Find(bytes);
  if (*symbol >= 0) return true;
  if (options_.is_byte_level) return false;
  const int32_t character = OneCharacter(bytes);
  if (character < 0) return false;
  *symbol = ~character;
  return true;
}

bool PieceEncoder::AddMerge(absl::string_view left_bytes, Symbol left,
                            absl::string_view right_bytes, Symbol right,
                            int32_t joined, uint32_t rank) {
  if (!merges_.Add(left, right, joined, rank)) return false;
  if (!options_.is_byte_level) {
    const int32_t last = LastCharacter(left_bytes);
    const int32_t first = FirstCharacter(right_bytes);
    if (last < 128 && first < 128) {
      ascii_seams_[last][first] = true;
    } else {
      seams_.insert(Seam(last, first));
    }
  }
  return true;
}

bool PieceEncoder::IsSeam(int32_t left, int32_t right) const {
  if (left < 128 && right < 128) return ascii_seams_[left][right];
  return seams_.contains(Seam(left, right));
}

void PieceEncoder::Finish() {
  const bool has_bytes = FirstByteWithoutToken() < 0;
  CHECK(has_bytes || (!options_.is_byte_level && unknown_ >= 0));
  // What nobody asks for; it takes longer than all the rest.
  if (options_.is_byte_level && options_.ignores_merges) return;
  Scratch scratch;
  for (const auto& [bytes, id] : ids_) {
    scratch.merged.clear();
    const bool is_known = Merge(bytes, &scratch, &scratch.merged);
    const size_t size = static_cast<size_t>(id) + 1;
    if (is_whole_.size() < size) is_whole_.resize(size);
    is_whole_[id] =
        is_known && scratch.merged.size() == 1 && scratch.merged[0] == id;
  }
}

bool PieceEncoder::Encode(absl::string_view piece, Scratch* scratch,
                          std::vector<int32_t>* out) const {
  if (piece.empty()) return true;
  const int32_t id = Find(piece);
  if (id >= 0 && (options_.ignores_merges || is_whole_[id])) {
    out->push_back(id);
    return true;
  }
  if (options_.is_byte_level) return Merge(piece, scratch, out);
  EncodeCharacters(piece, scratch, out);
  return true;
}

// Cuts a piece where no merge can reach across, which is before most words:
// what lies on either side merges as if the other were not there.
void PieceEncoder::EncodeCharacters(absl::string_view piece, Scratch* scratch,
                                    std::vector<int32_t>* out) const {
  size_t begin = 0;
  size_t pos = 0;
  int32_t previous = NextCharacter(piece, &pos);
  bool after_unknown = false;
  const auto take = [&](size_t end) {
    const absl::string_view part = piece.substr(begin, end - begin);
    begin = end;
    const int32_t id = Find(part);
    if (id >= 0 && is_whole_[id]) {
      out->push_back(id);
      after_unknown = false;
      return;
    }
    scratch->merged.clear();
    Merge(part, scratch, &scratch->merged);
    for (Symbol symbol : scratch->merged) {
      if (symbol >= 0) {
        out->push_back(symbol);
        after_unknown = false;
      } else {
        after_unknown = AppendUnknown(~symbol, after_unknown, out);
      }
    }
  };
  while (pos < piece.size()) {
    const size_t middle = pos;
    const int32_t character = NextCharacter(piece, &pos);
    if (!IsSeam(previous, character)) take(middle);
    previous = character;
  }
  take(piece.size());
}

// Appends what stands for a character that is no token; true when that is the
// unknown token.
bool PieceEncoder::AppendUnknown(int32_t character, bool after_unknown,
                                 std::vector<int32_t>* out) const {
  std::string bytes;
  AppendCharacter(character, &bytes);
  bool has_bytes = true;
  for (char c : bytes) has_bytes &= byte_tokens_[static_cast<uint8_t>(c)] >= 0;
  if (has_bytes) {
    for (char c : bytes) out->push_back(byte_tokens_[static_cast<uint8_t>(c)]);
    return false;
  }
  CHECK(unknown_ >= 0);
  if (!after_unknown || !options_.fuses_unknown) out->push_back(unknown_);
  return true;
}

// Appends symbols; of a byte-level encoder all of them are tokens, or there is
// one missing.
bool PieceEncoder::Merge(absl::string_view part, Scratch* scratch,
                         std::vector<Symbol>* out) const {
  scratch->symbols.clear();
  if (options_.is_byte_level) {
    for (char c : part) {
      const int32_t id = byte_tokens_[static_cast<uint8_t>(c)];
      if (id < 0) return false;
      scratch->symbols.push_back(id);
    }
  } else {
    for (size_t pos = 0; pos < part.size();) {
      scratch->symbols.push_back(SymbolOf(NextCharacter(part, &pos)));
    }
  }
  merges_.Merge(scratch->symbols, &scratch->merging, out);
  return true;
}

}  // namespace tern
