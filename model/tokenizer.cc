#include "model/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/text_range.h"
#include "model/tokenizer_gguf.h"
#include "model/tokenizer_json.h"
#include "model/tokenizer_state.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// Far above any request; keeps every count here within 31 bits.
constexpr size_t kTextBytesMax = size_t{1} << 28;

// What `ranges` of a text are of its part [begin, end), which they may only
// begin before or end behind.
TextRanges PartOf(const TextRanges& ranges, size_t begin, size_t end) {
  TextRanges part;
  auto range = std::partition_point(
      ranges.begin(), ranges.end(),
      [begin](const TextRange& r) { return r.end <= begin; });
  for (; range != ranges.end() && range->begin < end; ++range) {
    part.push_back({std::max(range->begin, begin) - begin,
                    std::min(range->end, end) - begin});
  }
  return part;
}

}  // namespace

void Tokenizer::State::AddToken(absl::string_view token_bytes, Kind kind) {
  bytes.append(token_bytes.data(), token_bytes.size());
  offsets.push_back(bytes.size());
  kinds.push_back(kind);
}

absl::string_view Tokenizer::State::BytesOf(TokenId id) const {
  return absl::string_view(bytes).substr(offsets[id],
                                         offsets[id + 1] - offsets[id]);
}

void Tokenizer::State::AddEnd(TokenId id) {
  if (id >= 0 &&
      std::find(end_ids.begin(), end_ids.end(), id) == end_ids.end()) {
    end_ids.push_back(id);
  }
}

void Tokenizer::State::AddEndsByName() {
  TokenId turn = -1;
  TokenId text = -1;
  for (const AddedTokens* tokens : {&added, &normalized_added}) {
    for (const AddedTokens::Token& token : tokens->tokens()) {
      if (!token.is_special) continue;
      if (token.spelling == "<|eot_id|>") turn = token.id;
      if (token.spelling == "<|end_of_text|>") text = token.id;
    }
  }
  if (turn < 0) return;
  // Llama 3's vocabulary, whose files name one of the two.
  AddEnd(turn);
  AddEnd(text);
}

absl::Status Tokenizer::State::EncodePlain(absl::string_view text,
                                           bool begins_text,
                                           TextRanges special_ranges,
                                           Scratch* scratch,
                                           std::vector<TokenId>* out) const {
  ASSIGN_OR_RETURN(
      const absl::string_view normalized,
      normalizer.Apply(text, &scratch->normalized, &special_ranges));
  return normalized_added.Cut(
      normalized, special_ranges, [&](absl::string_view piece, TokenId id) {
        if (id >= 0) {
          out->push_back(id);
          return absl::OkStatus();
        }
        bool is_known = true;
        RETURN_IF_ERROR(pretokenizer.Split(
            piece, begins_text && piece.data() == normalized.data(),
            [&](absl::string_view part) {
              is_known &= encoder->Encode(part, &scratch->pieces, out);
            }));
        if (is_known) return absl::OkStatus();
        return absl::InvalidArgumentError(
            "the text has a control character, or one that no standard "
            "assigns, for which this model's vocabulary has no token");
      });
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromGguf(
    const GgufReader& file, int vocab_size) {
  auto state = std::make_unique<State>();
  RETURN_IF_ERROR(ReadGgufTokenizer(file, vocab_size, state.get()));
  return std::make_unique<Tokenizer>(std::move(state));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(
    absl::string_view tokenizer_json, absl::string_view tokenizer_config_json,
    int vocab_size) {
  auto state = std::make_unique<State>();
  RETURN_IF_ERROR(ReadJsonTokenizer(tokenizer_json, tokenizer_config_json,
                                    vocab_size, state.get()));
  return std::make_unique<Tokenizer>(std::move(state));
}

Tokenizer::Tokenizer(std::unique_ptr<const State> state)
    : state_(std::move(state)) {}

Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::vector<TokenId>> Tokenizer::State::Encode(
    absl::string_view text, bool add_bos,
    const TextRanges& special_ranges) const {
  if (text.size() > kTextBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text has ", text.size(), " bytes; at most ",
                     kTextBytesMax, " can be tokenised"));
  }
  const size_t invalid = FindInvalidUtf8(text);
  if (invalid != absl::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text is not UTF-8 at byte offset ", invalid));
  }
  std::vector<TokenId> out;
  out.reserve(text.size() / 3 + 2);
  if (add_bos && adds_bos) out.push_back(bos);

  Scratch scratch;
  RETURN_IF_ERROR(
      added.Cut(text, special_ranges, [&](absl::string_view piece, TokenId id) {
        if (id < 0) {
          const size_t begin = piece.data() - text.data();
          return EncodePlain(
              piece, begin == 0,
              PartOf(special_ranges, begin, begin + piece.size()), &scratch,
              &out);
        }
        out.push_back(id);
        return absl::OkStatus();
      }));
  return out;
}

absl::StatusOr<std::vector<TokenId>> Tokenizer::Encode(
    absl::string_view text, const EncodeOptions& options) const {
  TextRanges special_ranges;
  if (options.parse_special) special_ranges.push_back({0, text.size()});
  return state_->Encode(text, options.add_bos, special_ranges);
}

absl::StatusOr<std::vector<TokenId>> Tokenizer::EncodePieces(
    absl::Span<const Piece> pieces, bool add_bos) const {
  std::string text;
  TextRanges special_ranges;
  for (const Piece& piece : pieces) {
    const size_t begin = text.size();
    text.append(piece.text.data(), piece.text.size());
    if (!piece.parse_special || piece.text.empty()) continue;
    if (!special_ranges.empty() && special_ranges.back().end == begin) {
      special_ranges.back().end = text.size();
    } else {
      special_ranges.push_back({begin, text.size()});
    }
  }
  return state_->Encode(text, add_bos, special_ranges);
}

absl::string_view Tokenizer::TokenBytes(TokenId id) const {
  CHECK(id >= 0 && id < vocab_size()) << "token " << id;
  return state_->BytesOf(id);
}

bool Tokenizer::IsSpecial(TokenId id) const {
  CHECK(id >= 0 && id < vocab_size()) << "token " << id;
  return state_->kinds[id] == State::Kind::kControl;
}

int Tokenizer::n_droppable() const { return state_->n_droppable; }

void Tokenizer::AppendBytes(TokenId id, int* n_droppable,
                            std::string* bytes) const {
  absl::string_view token = TokenBytes(id);
  const absl::string_view droppable = state_->droppable;
  while (*n_droppable > 0 && !token.empty()) {
    if (token.substr(0, droppable.size()) != droppable) {
      *n_droppable = 0;
      break;
    }
    token.remove_prefix(droppable.size());
    --*n_droppable;
    if (token.empty() && state_->drops_from_first_token_only) *n_droppable = 0;
  }
  bytes->append(token.data(), token.size());
}

std::string Tokenizer::Decode(absl::Span<const TokenId> ids,
                              bool keep_special) const {
  std::string bytes;
  int n_droppable = state_->n_droppable;
  for (TokenId id : ids) {
    if (!IsSpecial(id)) {
      AppendBytes(id, &n_droppable, &bytes);
    } else if (keep_special) {
      const absl::string_view spelling = TokenBytes(id);
      bytes.append(spelling.data(), spelling.size());
    }
  }
  std::string text;
  if (AppendValidUtf8(bytes, &text) < bytes.size()) {
    text.append(kReplacementCharacter);
  }
  return text;
}

int Tokenizer::vocab_size() const { return state_->vocab_size(); }
TokenId Tokenizer::bos_id() const { return state_->bos; }
TokenId Tokenizer::eos_id() const { return state_->eos; }
bool Tokenizer::adds_bos() const { return state_->adds_bos; }
const std::vector<TokenId>& Tokenizer::end_ids() const {
  return state_->end_ids;
}

std::string IncrementalDecoder::Next(TokenId id) {
  if (tokenizer_->IsSpecial(id)) return "";
  tokenizer_->AppendBytes(id, &n_droppable_, &pending_);
  std::string text;
  const size_t taken = AppendValidUtf8(pending_, &text);
  pending_.erase(0, taken);
  return text;
}

std::string IncrementalDecoder::Finish() {
  if (pending_.empty()) return "";
  pending_.clear();
  return kReplacementCharacter;
}

}  // namespace tern
