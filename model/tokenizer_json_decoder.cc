#include "model/tokenizer_json_decoder.h"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/byte_alphabet.h"
#include "model/tokenizer_json_splits.h"
#include "model/unicode_space.h"
#include "util/status_macros.h"
#include "util/utf8.h"

namespace tern {

absl::Status JsonDecoder::Read(const JsonPlace& place) {
  if (place.is_null()) {
    return place.Unknown(
        "is missing, which would put a space between any two tokens");
  }
  return ReadStep(place);
}

absl::Status JsonDecoder::ReadStep(const JsonPlace& place) {
  if (steps_.size() >= kStepsMax) {
    return place.Wrong(absl::StrCat("is a step too many; at most ", kStepsMax,
                                    " are allowed"));
  }
  ASSIGN_OR_RETURN(const absl::string_view type, place.Type());
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const JsonPlace list, place.Member("decoders"));
    ASSIGN_OR_RETURN(const size_t n, list.ArraySize());
    for (size_t i = 0; i < n; ++i) RETURN_IF_ERROR(ReadStep(list.Element(i)));
    return absl::OkStatus();
  }
  if (type == "Fuse") {
    is_fused_ = true;
    return absl::OkStatus();
  }
  if (type == "Strip") return ReadStrip(place);
  if (is_fused_) {
    return place.Unknown(absl::StrCat("is a decoder of type '",
                                      type.substr(0, 64),
                                      "' for the whole text; Tern knows Strip "
                                      "alone behind Fuse or ByteLevel"));
  }
  Step step = {};
  if (type == "Replace") {
    step.kind = Step::kReplace;
    RETURN_IF_ERROR(ReadJsonNormalizer(place, &step.replace));
  } else if (type == "ByteFallback") {
    step.kind = Step::kBytes;
  } else if (type == "ByteLevel") {
    step.kind = Step::kByteLevel;
    is_fused_ = true;
  } else if (type == "Metaspace") {
    step.kind = Step::kReplace;
    ASSIGN_OR_RETURN(const absl::string_view mark,
                     place.StringOr("replacement", kSpaceMark));
    if (mark.empty()) return place.Wrong("has an empty replacement");
    step.replace.AddReplace(mark, " ");
    ASSIGN_OR_RETURN(const bool adds_space,
                     place.BoolOr("add_prefix_space", true));
    ASSIGN_OR_RETURN(
        const absl::string_view scheme,
        place.StringOr("prepend_scheme", adds_space ? "always" : "never"));
    if (scheme != "never") {
      droppable_ = " ";
      n_droppable_ = std::numeric_limits<int>::max();
      drops_from_first_token_only_ = true;
    }
  } else {
    return place.Unknown(
        absl::StrCat("is of type '", type.substr(0, 64),
                     "'; Tern knows Sequence, ByteLevel, Metaspace, Replace, "
                     "ByteFallback, Fuse and Strip"));
  }
  steps_.push_back(std::move(step));
  return absl::OkStatus();
}

absl::Status JsonDecoder::ReadStrip(const JsonPlace& place) {
  ASSIGN_OR_RETURN(const JsonPlace content, place.Member("content"));
  ASSIGN_OR_RETURN(const absl::string_view stripped, content.String());
  size_t size = 0;
  if (!stripped.empty()) NextCharacter(stripped, &size);
  if (size == 0 || size != stripped.size()) {
    return content.Wrong("is not one character");
  }
  int64_t counts[2];
  const char* const keys[2] = {"start", "stop"};
  for (int i = 0; i < 2; ++i) {
    ASSIGN_OR_RETURN(const JsonPlace count, place.Member(keys[i]));
    ASSIGN_OR_RETURN(counts[i], count.Int());
    if (counts[i] < 0 || counts[i] > std::numeric_limits<int>::max()) {
      return count.Wrong("is not between 0 and 2147483647");
    }
  }
  if (!is_fused_) {
    Step step = {};
    step.kind = Step::kStrip;
    step.stripped = std::string(stripped);
    step.n_start = counts[0];
    step.n_end = counts[1];
    steps_.push_back(std::move(step));
    return absl::OkStatus();
  }
  if (counts[1] != 0) {
    return place.Unknown(
        "strips the end of a text, which Tern streams and cannot know");
  }
  if (n_droppable_ != 0) return place.Unknown("strips a text a second time");
  droppable_ = std::string(stripped);
  n_droppable_ = static_cast<int>(counts[0]);
  return absl::OkStatus();
}

absl::Status JsonDecoder::AppendBytes(absl::string_view spelling,
                                      std::string* bytes) const {
  std::string room;
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Step::kReplace: {
        // What comes out may lie in the room that the next step writes to.
        std::string other;
        ASSIGN_OR_RETURN(const absl::string_view replaced,
                         step.replace.Apply(spelling, &other));
        room = std::string(replaced);
        spelling = room;
        break;
      }
      case Step::kStrip: {
        const absl::string_view stripped = step.stripped;
        for (int64_t n = 0; n < step.n_start; ++n) {
          if (spelling.substr(0, stripped.size()) != stripped) break;
          spelling.remove_prefix(stripped.size());
        }
        for (int64_t n = 0; n < step.n_end; ++n) {
          if (spelling.size() < stripped.size()) break;
          const size_t end = spelling.size() - stripped.size();
          if (spelling.substr(end) != stripped) break;
          spelling = spelling.substr(0, end);
        }
        break;
      }
      case Step::kBytes: {
        const int byte = ByteOfToken(spelling);
        if (byte < 0) break;
        // A byte is no text that later steps could read.
        bytes->push_back(static_cast<char>(byte));
        return absl::OkStatus();
      }
      case Step::kByteLevel: {
        // A token with other characters stands for itself.
        const size_t size = bytes->size();
        if (AppendSpelledBytes(spelling, bytes)) return absl::OkStatus();
        bytes->resize(size);
        break;
      }
    }
  }
  bytes->append(spelling.data(), spelling.size());
  return absl::OkStatus();
}

}  // namespace tern
