#ifndef COORDINATOR_WORKER_ASSIGNMENT_H_
#define COORDINATOR_WORKER_ASSIGNMENT_H_

#include <string>
#include <vector>

#include "absl/types/span.h"

namespace tern {

// Which of several models a worker serves. Pure.
//
// A model that has no pipeline comes first, the one that lacks fewest workers
// before others; when all have one, workers are shared out evenly, in units of
// whole pipelines.

// A worker as far as this choice goes.
struct AssignableWorker {
  std::string id;
  std::vector<std::string> models;  // that it has the files of
  bool can_fetch = false;           // those of others
  bool available = true;            // lives, and may get a stage
  bool has_stage = false;
};

// A model and the workers it has.
struct ModelWorkers {
  std::string name;
  bool can_be_fetched = false;
  // Workers of one pipeline, as far as is known, at least 1.
  int n_stages = 1;
  // Pipelines that serve or load.
  int n_pipelines = 0;
  // It has had workers enough for a while, and no pipeline came of it: it needs
  // more, for their memory perhaps.
  bool is_stuck = false;
  std::vector<AssignableWorker> workers;
};

// Index of the model that a new worker is for; the earlier of equals. The first
// one when it can serve none: it is known there and gets no stage. REQUIRES:
// there is a model.
int ChooseModel(absl::Span<const ModelWorkers> models,
                const AssignableWorker& worker);

// The workers to take from their models, because one that has no pipeline lacks
// them: those that are of no use where they are, spare ones, and then those of
// models that keep enough for a pipeline. None where they would not be enough.
std::vector<std::string> WorkersToMove(absl::Span<const ModelWorkers> models);

}  // namespace tern

#endif  // COORDINATOR_WORKER_ASSIGNMENT_H_
