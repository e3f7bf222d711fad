#ifndef COORDINATOR_FAIR_QUEUE_H_
#define COORDINATOR_FAIR_QUEUE_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "coordinator/sequence.h"

namespace tern {

// Who waits to run, and whose turn it is.
//
// The more urgent level goes first. Within a level the tenants take turns by
// what they have had: each has a count of tokens served, and the one with the
// least goes next; among its sequences the earliest. A tenant that comes back
// from having nothing to do starts from the least count of those that have:
// idleness is not saved up (the virtual token counter of Sheng et al., 2024,
// "Fairness in Serving Large Language Models").
//
// Knows each sequence from Enter() to Leave(), waiting or running. Borrows the
// sequences. Pure; not thread-safe.
class FairQueue {
 public:
  // A new sequence waits.
  void Enter(Sequence* sequence);

  // A sequence has ended, waiting or running.
  void Leave(Sequence* sequence);

  // A waiting sequence runs; a running one waits again.
  void Start(Sequence* sequence);
  void Return(Sequence* sequence);

  // A sequence has had so many tokens computed or sampled.
  void Charge(const Sequence& sequence, int64_t n_tokens);

  // Whose turn it is, or null. Those that still await a token from before they
  // were pre-empted are passed over.
  Sequence* Next() const;

  // Whether fairness lets `sequence`, which waits, take the place of
  // `running`, of the same level: its tenant has had no more, and would run
  // fewer sequences even then.
  bool MayReplace(const Sequence& sequence, const Sequence& running) const;

  // What the sequence's tenant has had.
  int64_t ServedTo(const Sequence& sequence) const;
  // Sequences of the tenant that run.
  int RunningOf(const Sequence& sequence) const;

  // Tokens of the prompts that wait at this level and at more urgent ones.
  int64_t PromptTokensWaiting(const Sequence::Level& level) const;

  int n_waiting() const { return n_waiting_; }
  int n_running() const { return n_running_; }

  // Those that wait, by rank.
  std::vector<Sequence*> Waiting() const;

 private:
  struct Tenant {
    int64_t served = 0;
    int n_waiting = 0;
    int n_running = 0;
    bool IsIdle() const { return n_waiting + n_running == 0; }
  };
  using Line = std::set<std::pair<int64_t, Sequence*>>;  // by arrival
  struct Lines {
    std::map<std::string, Line> of_tenant;  // without empty ones
    int64_t n_prompt_tokens = 0;
  };

  Tenant& TenantOf(const Sequence& sequence) {
    return tenants_.at(sequence.parameters.tenant);
  }
  void AddToLine(Sequence* sequence);
  void RemoveFromLine(Sequence* sequence);

  absl::flat_hash_map<std::string, Tenant> tenants_;
  std::map<Sequence::Level, Lines> lines_;  // without empty ones
  int n_waiting_ = 0;
  int n_running_ = 0;
};

}  // namespace tern

#endif  // COORDINATOR_FAIR_QUEUE_H_
