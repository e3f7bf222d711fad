#include "coordinator/stage_match.h"

#include <algorithm>
#include <utility>

namespace tern {
namespace {

// Grows a matching by augmenting paths.
class Matcher {
 public:
  Matcher(const std::vector<CutStage>& stages, int n_workers)
      : stages_(stages), stage_of_(n_workers, -1) {}

  // Finds a worker for the stage, those that nobody has first. What others have
  // been given under a narrower wish is theirs under this one as well.
  bool Place(int stage, const MayHave& may_have) {
    seen_.assign(stage_of_.size(), false);
    return Augment(stage, may_have);
  }

  // -1 when it has none.
  int WorkerOf(int stage) const {
    const auto it = std::find(stage_of_.begin(), stage_of_.end(), stage);
    return it == stage_of_.end() ? -1
                                 : static_cast<int>(it - stage_of_.begin());
  }

 private:
  bool Augment(int stage, const MayHave& may_have) {
    for (const bool is_taken : {false, true}) {
      for (size_t i = 0; i < stage_of_.size(); ++i) {
        if ((stage_of_[i] >= 0) != is_taken || seen_[i]) continue;
        CutStage given = stages_[stage];
        given.worker = static_cast<int>(i);
        if (!may_have(given)) continue;
        seen_[i] = true;
        if (is_taken && !Augment(stage_of_[i], may_have)) continue;
        stage_of_[i] = stage;
        return true;
      }
    }
    return false;
  }

  const std::vector<CutStage>& stages_;
  std::vector<int> stage_of_;  // by worker; -1 for none
  std::vector<bool> seen_;     // workers, in this search
};

}  // namespace

std::vector<CutStage> MatchStages(std::vector<CutStage> stages, int n_workers,
                                  absl::Span<const MayHave> may_have) {
  Matcher matcher(stages, n_workers);
  const int n = static_cast<int>(stages.size());
  for (const MayHave& wish : may_have) {
    for (int i = 0; i < n; ++i) {
      if (matcher.WorkerOf(i) < 0) matcher.Place(i, wish);
    }
  }
  std::vector<CutStage> matched = stages;
  for (int i = 0; i < n; ++i) {
    matched[i].worker = matcher.WorkerOf(i);
    if (matched[i].worker < 0) return {};
  }
  return matched;
}

}  // namespace tern
