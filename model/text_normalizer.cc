#include "model/text_normalizer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/normal_form.h"
#include "model/unicode_space.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
void TextNormalizer::AddPrepend(absl::string_view text) {
  Step step = {};
  step.kind = Step::kPrepend;
  step.to = std::string(text);
  steps_.push_back(std::move(step));
}

void TextNormalizer::AddReplace(absl::string_view from, absl::string_view to) {
  CHECK(!from.empty());
  Step step = {};
  step.kind = Step::kReplace;
  step.from = std::string(from);
  step.to = std::string(to);
  steps_.push_back(std::move(step));
}

void TextNormalizer::AddReplaceMatches(std::unique_ptr<Regex> pattern,
                                       absl::string_view to) {
  Step step = {};
  step.kind = Step::kReplaceMatches;
  step.pattern = std::move(pattern);
  step.to = std::string(to);
  steps_.push_back(std::move(step));
}

void TextNormalizer::AddStrip(bool left, bool right) {
  Step step = {};
  step.kind = Step::kStrip;
  step.left = left;
  step.right = right;
  steps_.push_back(std::move(step));
}

void TextNormalizer::AddNormalFormC() {
  Step step = {};
  step.kind = Step::kNormalFormC;
  steps_.push_back(std::move(step));
}

absl::Status TextNormalizer::ApplyStep(const Step& step, absl::string_view text,
                                       std::string* out) const {
  const auto append = [&](absl::string_view more) {
    if (more.size() > text_bytes_max_ - out->size()) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "the tokenizer's replacements make the text longer than ",
          text_bytes_max_, " bytes"));
    }
    out->append(more.data(), more.size());
    return absl::OkStatus();
  };
  switch (step.kind) {
    case Step::kPrepend:
      if (!text.empty()) RETURN_IF_ERROR(append(step.to));
      return append(text);
    case Step::kReplace: {
      size_t pos = 0;
      for (;;) {
        const size_t next = text.find(step.from, pos);
        if (next == absl::string_view::npos) break;
        RETURN_IF_ERROR(append(text.substr(pos, next - pos)));
        RETURN_IF_ERROR(append(step.to));
        pos = next + step.from.size();
      }
      return append(text.substr(pos));
    }
    case Step::kReplaceMatches: {
      Regex::Room room;
      Regex::Walk walk(step.pattern.get(), text, &room);
      size_t pos = 0;
      for (;;) {
        Regex::Match match;
        ASSIGN_OR_RETURN(const bool is_found, walk.Next(&match));
        if (!is_found) break;
        RETURN_IF_ERROR(append(text.substr(pos, match.begin - pos)));
        RETURN_IF_ERROR(append(step.to));
        pos = match.end;
      }
      return append(text.substr(pos));
    }
    case Step::kStrip: {
      size_t begin = 0, end = text.size();
      if (step.left) begin = SpacesAtStart(text);
      if (step.right) end -= SpacesAtEnd(text.substr(begin));
      return append(text.substr(begin, end - begin));
    }
    case Step::kNormalFormC: {
      std::string room;
      return append(ToNormalFormC(text, &room));
    }
  }
  CHECK(false);
  return absl::OkStatus();
}

absl::StatusOr<absl::string_view> TextNormalizer::Apply(
    absl::string_view text, std::string* room) const {
  if (steps_.empty()) return text;
  std::string other;
  for (const Step& step : steps_) {
    other.clear();
    other.reserve(text.size() + text.size() / 2);
    RETURN_IF_ERROR(ApplyStep(step, text, &other));
    room->swap(other);
    text = *room;
  }
  return text;
}

}  // namespace tern
