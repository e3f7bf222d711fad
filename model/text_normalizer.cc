#include "model/text_normalizer.h"

#include <algorithm>
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

// What a step writes, in the order of its input; moves the ranges along.
class TextNormalizer::Output {
 public:
  Output(size_t text_bytes_max, absl::string_view text, TextRanges* ranges,
         std::string* out)
      : text_bytes_max_(text_bytes_max),
        text_(text),
        ranges_(ranges),
        out_(out) {}

  // The next `n` bytes of the input stay.
  absl::Status Keep(size_t n) {
    for (; HasEdge() && Edge() < pos_ + n; ++n_edges_) {
      MoveEdge(out_->size() + (Edge() - pos_));
    }
    const absl::string_view kept = text_.substr(pos_, n);
    pos_ += n;
    return Append(kept);
  }

  // The next `n` bytes of the input give way to `to`. With `n` == 0 that is
  // put in.
  absl::Status Replace(size_t n, absl::string_view to) {
    const size_t before = out_->size();
    RETURN_IF_ERROR(Append(to));
    // An edge inside keeps `to` out of its range; one at the beginning leaves
    // it to the range that has the replaced bytes, or that is touched.
    for (; HasEdge() && Edge() < pos_ + n; ++n_edges_) {
      const bool is_after = Edge() != pos_ && IsBegin();
      MoveEdge(is_after ? out_->size() : before);
    }
    if (n == 0 && HasEdge() && Edge() == pos_ && IsBegin()) {
      MoveEdge(before);
      ++n_edges_;
    }
    pos_ += n;
    return absl::OkStatus();
  }

  absl::Status KeepRest() {
    RETURN_IF_ERROR(Keep(text_.size() - pos_));
    for (; HasEdge(); ++n_edges_) MoveEdge(out_->size());
    return absl::OkStatus();
  }

  size_t pos() const { return pos_; }  // in the input

 private:
  // The next edge of a range: begin and end of the first, of the second, ...
  bool HasEdge() const {
    return ranges_ != nullptr && n_edges_ < 2 * ranges_->size();
  }
  bool IsBegin() const { return n_edges_ % 2 == 0; }
  size_t Edge() const {
    const TextRange& range = (*ranges_)[n_edges_ / 2];
    return IsBegin() ? range.begin : range.end;
  }
  void MoveEdge(size_t to) {
    TextRange& range = (*ranges_)[n_edges_ / 2];
    if (IsBegin()) {
      range.begin = to;
    } else {
      range.end = std::max(range.begin, to);
    }
  }

  absl::Status Append(absl::string_view more) {
    if (more.size() > text_bytes_max_ - out_->size()) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "the tokenizer's replacements make the text longer than ",
          text_bytes_max_, " bytes"));
    }
    out_->append(more.data(), more.size());
    return absl::OkStatus();
  }

  const size_t text_bytes_max_;
  const absl::string_view text_;
  TextRanges* const ranges_;
  std::string* const out_;
  size_t pos_ = 0;      // bytes of the input that are done
  size_t n_edges_ = 0;  // edges that are done
};

absl::Status TextNormalizer::ApplyStep(const Step& step, absl::string_view text,
                                       Output* out) {
  switch (step.kind) {
    case Step::kPrepend:
      if (!text.empty()) RETURN_IF_ERROR(out->Replace(0, step.to));
      return out->KeepRest();
    case Step::kReplace: {
      for (;;) {
        const size_t next = text.find(step.from, out->pos());
        if (next == absl::string_view::npos) return out->KeepRest();
        RETURN_IF_ERROR(out->Keep(next - out->pos()));
        RETURN_IF_ERROR(out->Replace(step.from.size(), step.to));
      }
    }
    case Step::kReplaceMatches: {
      Regex::Room room;
      Regex::Walk walk(step.pattern.get(), text, &room);
      for (;;) {
        Regex::Match match;
        ASSIGN_OR_RETURN(const bool is_found, walk.Next(&match));
        if (!is_found) return out->KeepRest();
        RETURN_IF_ERROR(out->Keep(match.begin - out->pos()));
        RETURN_IF_ERROR(out->Replace(match.end - match.begin, step.to));
      }
    }
    case Step::kStrip: {
      const size_t begin = step.left ? SpacesAtStart(text) : 0;
      const size_t n_cut = step.right ? SpacesAtEnd(text.substr(begin)) : 0;
      RETURN_IF_ERROR(out->Replace(begin, ""));
      RETURN_IF_ERROR(out->Keep(text.size() - begin - n_cut));
      RETURN_IF_ERROR(out->Replace(n_cut, ""));
      return out->KeepRest();
    }
    case Step::kNormalFormC: {
      RETURN_IF_ERROR(VisitNormalFormC(
          text, [out](size_t begin, size_t end, absl::string_view to) {
            RETURN_IF_ERROR(out->Keep(begin - out->pos()));
            return out->Replace(end - begin, to);
          }));
      return out->KeepRest();
    }
  }
  CHECK(false);
  return absl::OkStatus();
}

absl::StatusOr<absl::string_view> TextNormalizer::Apply(
    absl::string_view text, std::string* room, TextRanges* ranges) const {
  if (steps_.empty()) return text;
  std::string other;
  for (const Step& step : steps_) {
    other.clear();
    other.reserve(text.size() + text.size() / 2);
    Output out(text_bytes_max_, text, ranges, &other);
    RETURN_IF_ERROR(ApplyStep(step, text, &out));
    room->swap(other);
    text = *room;
  }
  return text;
}

}  // namespace tern
