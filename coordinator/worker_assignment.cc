#include "coordinator/worker_assignment.h"

#include <algorithm>
#include <cstdint>

#include "util/logging.h"

namespace tern {
namespace {

bool CanServe(const AssignableWorker& worker, const ModelWorkers& model) {
  return (worker.can_fetch && model.can_be_fetched) ||
         std::find(worker.models.begin(), worker.models.end(), model.name) !=
             worker.models.end();
}

// Those that may get a stage of it.
int NumUseful(const ModelWorkers& model) {
  return static_cast<int>(
      std::count_if(model.workers.begin(), model.workers.end(),
                    [&](const AssignableWorker& worker) {
                      return worker.available && CanServe(worker, model);
                    }));
}

// Workers that are missing for a first pipeline.
int Lack(const ModelWorkers& model) {
  if (model.n_pipelines > 0) return 0;
  return std::max(model.n_stages - NumUseful(model), model.is_stuck ? 1 : 0);
}

}  // namespace

int ChooseModel(absl::Span<const ModelWorkers> models,
                const AssignableWorker& worker) {
  CHECK(!models.empty());
  int best = -1;
  const auto is_better = [&](const ModelWorkers& a, const ModelWorkers& b) {
    const int lack_a = Lack(a);
    const int lack_b = Lack(b);
    if ((lack_a > 0) != (lack_b > 0)) return lack_a > 0;
    if (lack_a != lack_b) return lack_a < lack_b;
    // Pipelines' worth of workers, compared without dividing.
    return int64_t{NumUseful(a)} * b.n_stages <
           int64_t{NumUseful(b)} * a.n_stages;
  };
  for (int i = 0; i < static_cast<int>(models.size()); ++i) {
    if (!CanServe(worker, models[i])) continue;
    if (best < 0 || is_better(models[i], models[best])) best = i;
  }
  return std::max(best, 0);
}

std::vector<std::string> WorkersToMove(absl::Span<const ModelWorkers> models) {
  for (const ModelWorkers& needy : models) {
    const int lack = Lack(needy);
    if (lack == 0) continue;
    std::vector<std::string> useless;
    std::vector<std::string> spare;
    std::vector<std::string> busy;
    for (const ModelWorkers& other : models) {
      if (&other == &needy) continue;
      // What may go without its last pipeline going with it.
      int n_surplus = NumUseful(other) - other.n_stages;
      for (const bool with_stage : {false, true}) {
        for (const AssignableWorker& worker : other.workers) {
          if (!worker.available || worker.has_stage != with_stage ||
              !CanServe(worker, needy)) {
            continue;
          }
          if (!CanServe(worker, other)) {
            useless.push_back(worker.id);
          } else if (other.n_pipelines > 0 && n_surplus > 0) {
            --n_surplus;
            (with_stage ? busy : spare).push_back(worker.id);
          }
        }
      }
    }
    std::vector<std::string> moved = useless;
    moved.insert(moved.end(), spare.begin(), spare.end());
    moved.insert(moved.end(), busy.begin(), busy.end());
    if (static_cast<int>(moved.size()) < lack) continue;
    moved.resize(lack);
    return moved;
  }
  return {};
}

}  // namespace tern
