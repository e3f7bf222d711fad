#include "coordinator/refused_stage.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace tern {
namespace {

bool IsAboutSize(const RefusedStage& stage) {
  return absl::IsResourceExhausted(stage.why);
}

int SharedLayers(const StageRange& a, const StageRange& b) {
  return std::max(0, std::min(a.layer_end, b.layer_end) -
                         std::max(a.layer_begin, b.layer_begin));
}

bool Contains(const StageRange& outer, const StageRange& inner) {
  return outer.layer_begin <= inner.layer_begin &&
         outer.layer_end >= inner.layer_end;
}

// Whether a worker that cannot load `refused` can load `range` no more.
bool MeetsAgain(const RefusedStage& refused, const StageRange& range) {
  if (!IsAboutSize(refused)) return Contains(range, refused.range);
  return range.layer_end - range.layer_begin >=
             refused.range.layer_end - refused.range.layer_begin &&
         (range.has_head || !refused.range.has_head);
}

}  // namespace

bool IsAboutStage(const absl::Status& why) {
  switch (why.code()) {
    case absl::StatusCode::kOk:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kUnavailable:
      return false;
    default:
      return true;
  }
}

void AddRefused(RefusedStage stage, std::vector<RefusedStage>* refused) {
  refused->erase(std::remove_if(refused->begin(), refused->end(),
                                [&](const RefusedStage& old) {
                                  return IsAboutSize(old) ==
                                             IsAboutSize(stage) &&
                                         MeetsAgain(stage, old.range);
                                }),
                 refused->end());
  if (refused->size() >= kMaxRefusedStages) refused->erase(refused->begin());
  refused->push_back(std::move(stage));
}

void DropDisproved(const StageRange& loaded,
                   std::vector<RefusedStage>* refused) {
  refused->erase(std::remove_if(refused->begin(), refused->end(),
                                [&](const RefusedStage& stage) {
                                  return MeetsAgain(stage, loaded);
                                }),
                 refused->end());
}

int64_t RefusedLayers(absl::Span<const RefusedStage> refused,
                      const StageRange& range) {
  int64_t layers = 0;
  for (const RefusedStage& stage : refused) {
    if (MeetsAgain(stage, range)) layers += kSameAgain;
    if (!IsAboutSize(stage)) layers += SharedLayers(stage.range, range);
  }
  return layers;
}

std::string RefusedText(absl::Span<const RefusedStage> refused) {
  return absl::StrJoin(
      refused, "; ", [](std::string* out, const RefusedStage& stage) {
        absl::StrAppend(out, "layers ", stage.range.layer_begin, "-",
                        stage.range.layer_end - 1, ": ", stage.why.message());
      });
}

}  // namespace tern
