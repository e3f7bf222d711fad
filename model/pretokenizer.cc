#include "model/pretokenizer.h"

#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_replace.h"
#include "model/byte_alphabet.h"
#include "util/logging.h"
#include "util/status_macros.h"
#include "util/utf8.h"

namespace tern {

void Pretokenizer::AddSplit(std::unique_ptr<Regex> pattern, Behavior behavior,
                            bool invert) {
  Step step = {};
  step.kind = Step::kSplit;
  step.pattern = std::move(pattern);
  step.behavior = behavior;
  step.invert = invert;
  steps_.push_back(std::move(step));
}

void Pretokenizer::AddSpacePrefix() {
  // Behind AddByteLevel() a space is no space any more.
  CHECK(!is_byte_level());
  Step step = {};
  step.kind = Step::kSpacePrefix;
  steps_.push_back(std::move(step));
}

void Pretokenizer::AddMetaspace(absl::string_view replacement, Prefix prefix) {
  CHECK(!is_byte_level());
  Step step = {};
  step.kind = Step::kMetaspace;
  step.replacement = std::string(replacement);
  step.prefix = prefix;
  steps_.push_back(std::move(step));
}

void Pretokenizer::AddByteLevel() {
  CHECK(!is_byte_level());
  first_spelled_step_ = steps_.size();
}

// One text on its way through the steps, depth first, so that only what a step
// changes takes memory.
class Pretokenizer::Run {
 public:
  Run(const Pretokenizer& pretokenizer,
      absl::FunctionRef<void(absl::string_view)> take)
      : pretokenizer_(pretokenizer),
        take_(take),
        rooms_(pretokenizer.steps_.size()) {}

  // `is_first`: the piece begins the whole text.
  absl::Status From(size_t index, absl::string_view piece, bool is_first) {
    if (piece.empty()) return absl::OkStatus();
    if (index == pretokenizer_.steps_.size()) {
      take_(piece);
      return absl::OkStatus();
    }
    const Step& step = pretokenizer_.steps_[index];
    switch (step.kind) {
      case Step::kSplit:
        return index >= pretokenizer_.first_spelled_step_
                   ? SplitSpelled(index, piece, is_first)
                   : Split(index, piece, is_first);
      case Step::kSpacePrefix: {
        if (piece.front() == ' ') return From(index + 1, piece, is_first);
        const std::string prefixed = " " + std::string(piece);
        return From(index + 1, prefixed, is_first);
      }
      case Step::kMetaspace: {
        std::string text =
            absl::StrReplaceAll(piece, {{" ", step.replacement}});
        const bool wants_prefix = step.prefix == Prefix::kAlways ||
                                  (step.prefix == Prefix::kFirst && is_first);
        if (wants_prefix &&
            absl::string_view(text).substr(0, step.replacement.size()) !=
                step.replacement) {
          text.insert(0, step.replacement);
        }
        return From(index + 1, text, is_first);
      }
    }
    CHECK(false);
    return absl::OkStatus();
  }

 private:
  absl::Status Split(size_t index, absl::string_view piece, bool is_first) {
    return ForEachPart(index, piece, [&](size_t begin, size_t end) {
      return From(index + 1, piece.substr(begin, end - begin),
                  is_first && begin == 0);
    });
  }

  // The pattern sees the spelling, where a byte is one character, of one byte
  // or two.
  absl::Status SplitSpelled(size_t index, absl::string_view piece,
                            bool is_first) {
    std::string spelling;
    AppendSpelling(piece, &spelling);
    size_t spelled = 0, bytes = 0;  // the same place in both
    const auto byte_at = [&](size_t place) {
      for (; spelled < place; ++bytes) NextCharacter(spelling, &spelled);
      return bytes;
    };
    return ForEachPart(index, spelling, [&](size_t begin, size_t end) {
      const size_t first = byte_at(begin);
      const size_t last = byte_at(end);
      return From(index + 1, piece.substr(first, last - first),
                  is_first && first == 0);
    });
  }

  // Calls `take` with the bounds of each piece that `text` is split into; some
  // may be empty.
  absl::Status ForEachPart(
      size_t index, absl::string_view text,
      absl::FunctionRef<absl::Status(size_t, size_t)> take) {
    const Step& step = pretokenizer_.steps_[index];
    Joiner joiner(step.behavior, take);
    Regex::Walk walk(step.pattern.get(), text, &rooms_[index]);
    size_t end = 0;
    for (;;) {
      Regex::Match match;
      ASSIGN_OR_RETURN(const bool is_found, walk.Next(&match));
      if (!is_found) break;
      if (match.begin > end) {
        RETURN_IF_ERROR(joiner.Add(end, match.begin, step.invert));
      }
      RETURN_IF_ERROR(joiner.Add(match.begin, match.end, !step.invert));
      end = match.end;
    }
    if (end < text.size()) {
      RETURN_IF_ERROR(joiner.Add(end, text.size(), step.invert));
    }
    return joiner.Finish();
  }

  // Takes matches and what is between them, in order, and gives pieces.
  class Joiner {
   public:
    Joiner(Behavior behavior,
           absl::FunctionRef<absl::Status(size_t, size_t)> take)
        : behavior_(behavior), take_(take) {}

    absl::Status Add(size_t begin, size_t end, bool is_match) {
      const bool after_match = has_last_ && last_is_match_;
      const bool after_other = has_last_ && !last_is_match_;
      bool joins = false;
      switch (behavior_) {
        case Behavior::kRemoved:
          return is_match ? absl::OkStatus() : take_(begin, end);
        case Behavior::kIsolated:
          return take_(begin, end);
        case Behavior::kMergedWithPrevious:
          joins = is_match && after_other;
          break;
        case Behavior::kMergedWithNext:
          joins = !is_match && after_match;
          break;
        case Behavior::kContiguous:
          joins = is_match ? after_match : after_other;
          break;
      }
      if (!joins) {
        RETURN_IF_ERROR(Finish());
        begin_ = begin;
      }
      end_ = end;
      has_last_ = true;
      last_is_match_ = is_match;
      return absl::OkStatus();
    }

    absl::Status Finish() {
      if (!has_last_) return absl::OkStatus();
      has_last_ = false;
      return take_(begin_, end_);
    }

   private:
    const Behavior behavior_;
    const absl::FunctionRef<absl::Status(size_t, size_t)> take_;
    bool has_last_ = false;
    bool last_is_match_ = false;
    size_t begin_ = 0;
    size_t end_ = 0;
  };

  const Pretokenizer& pretokenizer_;
  const absl::FunctionRef<void(absl::string_view)> take_;
  // A step has one piece in work at a time.
  std::vector<Regex::Room> rooms_;
};

absl::Status Pretokenizer::Split(
    absl::string_view text, bool begins_text,
    absl::FunctionRef<void(absl::string_view)> take) const {
  return Run(*this, take).From(0, text, begins_text);
}

}  // namespace tern
