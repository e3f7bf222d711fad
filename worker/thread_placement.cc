#include "worker/thread_placement.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace tern {
namespace {

// A processor that the process may use, and its place in the order of choice.
struct Candidate {
  Processor processor;
  int rank;   // among the candidates of its core
  int place;  // of its core among those of its node
};

std::vector<Candidate> Candidates(const ProcessorGrant& grant) {
  std::map<int, Processor> by_id;
  int cores = 0;
  for (const Processor& p : grant.machine) {
    by_id[p.id] = p;
    cores = std::max(cores, p.core + 1);
  }
  std::vector<Candidate> candidates;
  for (const int id : grant.allowed) {
    const auto it = by_id.find(id);
    candidates.push_back(
        {it != by_id.end() ? it->second : Processor{id, cores++, 0}, 0, 0});
  }
  std::sort(
      candidates.begin(), candidates.end(),
      [](const Candidate& a, const Candidate& b) {
        return std::tie(a.processor.node, a.processor.core, a.processor.id) <
               std::tie(b.processor.node, b.processor.core, b.processor.id);
      });
  for (size_t i = 1; i < candidates.size(); ++i) {
    const Candidate& last = candidates[i - 1];
    Candidate& c = candidates[i];
    if (c.processor.node != last.processor.node) continue;
    const bool same_core = c.processor.core == last.processor.core;
    c.rank = same_core ? last.rank + 1 : 0;
    c.place = same_core ? last.place : last.place + 1;
  }
  return candidates;
}

int CoreCount(const std::vector<Candidate>& candidates) {
  return static_cast<int>(
      std::count_if(candidates.begin(), candidates.end(),
                    [](const Candidate& c) { return c.rank == 0; }));
}

// Why kAuto does not bind; empty when it does.
std::string ReasonNotToBind(const std::vector<Candidate>& candidates,
                            const ProcessorGrant& grant, int n_threads) {
  const double quota = grant.quota;
  const int n_processors = static_cast<int>(candidates.size());
  const int n_cores = CoreCount(candidates);
  if (n_processors == 0) return "the process's processors cannot be told";
  if (quota < n_processors) {
    return absl::StrCat("the control group grants the time of ", quota, " of ",
                        n_processors,
                        " processors, and a thread that it stops must be able "
                        "to go on elsewhere");
  }
  if (n_threads > n_processors) {
    return absl::StrCat("more threads (", n_threads, ") than processors (",
                        n_processors, ")");
  }
  if (n_threads < n_cores) {
    return absl::StrCat("fewer threads (", n_threads, ") than cores (", n_cores,
                        "), which leaves some to others, and who keeps to a "
                        "core cannot give way to them");
  }
  // In the order of nodes.
  const bool is_one_node =
      candidates.front().processor.node == candidates.back().processor.node;
  if (is_one_node && candidates.size() >= grant.machine.size()) {
    return "the process may run on the whole machine, which has one memory "
           "node, so that binding would gain little and lose where others run";
  }
  return "";
}

std::string FormatIds(std::vector<int> ids) {
  std::sort(ids.begin(), ids.end());
  std::string text;
  for (size_t begin = 0; begin < ids.size();) {
    size_t end = begin + 1;
    while (end < ids.size() && ids[end] == ids[end - 1] + 1) ++end;
    absl::StrAppend(&text, begin == 0 ? "" : ",", ids[begin]);
    if (end - begin > 1) absl::StrAppend(&text, "-", ids[end - 1]);
    begin = end;
  }
  return text;
}

}  // namespace

bool ParsePinMode(absl::string_view name, PinMode* mode) {
  for (const auto& [text, value] :
       {std::pair<absl::string_view, PinMode>{"auto", PinMode::kAuto},
        {"on", PinMode::kOn},
        {"off", PinMode::kOff}}) {
    if (name != text) continue;
    *mode = value;
    return true;
  }
  return false;
}

absl::StatusOr<ThreadPlacement> PlaceThreads(const ProcessorGrant& grant,
                                             int n_threads, PinMode mode) {
  ThreadPlacement placement;
  placement.n_threads = n_threads;
  if (mode == PinMode::kOff) {
    placement.reason = "switched off";
    return placement;
  }
  std::vector<Candidate> candidates = Candidates(grant);
  if (mode == PinMode::kOn) {
    if (n_threads > static_cast<int>(candidates.size())) {
      return absl::InvalidArgumentError(absl::StrCat(
          n_threads, " threads cannot be bound to the ", candidates.size(),
          " processors that this process may run on; use fewer threads, or do "
          "not bind them"));
    }
    placement.reason = "switched on";
  } else {
    placement.reason = ReasonNotToBind(candidates, grant, n_threads);
    if (!placement.reason.empty()) return placement;
    placement.reason = "they take every core that the process may use";
  }

  // Stable: candidates are in the order of nodes and cores.
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) {
                     return std::tie(a.rank, a.place) <
                            std::tie(b.rank, b.place);
                   });
  candidates.resize(n_threads);
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) {
              return std::tie(a.processor.node, a.place, a.rank) <
                     std::tie(b.processor.node, b.place, b.rank);
            });
  for (const Candidate& c : candidates) {
    placement.processors.push_back(c.processor.id);
    placement.nodes.push_back(c.processor.node);
  }
  return placement;
}

std::vector<int> NodesOf(const ThreadPlacement& placement) {
  std::vector<int> nodes = placement.nodes;
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  return nodes;
}

std::string Describe(const ThreadPlacement& placement) {
  if (placement.processors.empty()) {
    return absl::StrCat("not bound: ", placement.reason);
  }
  const size_t n_nodes = NodesOf(placement).size();
  return absl::StrCat("bound to processors ", FormatIds(placement.processors),
                      " of ", n_nodes,
                      n_nodes == 1 ? " node: " : " nodes: ", placement.reason);
}

}  // namespace tern
