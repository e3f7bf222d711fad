#include "coordinator/fair_queue.h"

#include <algorithm>
#include <optional>
#include <tuple>

#include "util/logging.h"

namespace tern {
namespace {

// Tenants remembered although they have nothing to do.
constexpr size_t kTenantsMax = 4096;

}  // namespace

void FairQueue::Enter(Sequence* sequence) {
  Tenant& tenant = tenants_[sequence->parameters.tenant];
  if (tenant.IsIdle()) {
    std::optional<int64_t> least;
    for (const auto& [name, other] : tenants_) {
      if (other.IsIdle()) continue;
      least = std::min(least.value_or(other.served), other.served);
    }
    tenant.served = std::max(tenant.served, least.value_or(0));
  }
  ++tenant.n_waiting;
  AddToLine(sequence);
}

void FairQueue::Leave(Sequence* sequence) {
  const auto it = tenants_.find(sequence->parameters.tenant);
  if (sequence->pipeline < 0) {
    --it->second.n_waiting;
    RemoveFromLine(sequence);
  } else {
    --it->second.n_running;
    --n_running_;
  }
  if (it->second.IsIdle() && tenants_.size() > kTenantsMax) tenants_.erase(it);
}

void FairQueue::Start(Sequence* sequence) {
  Tenant& tenant = TenantOf(*sequence);
  --tenant.n_waiting;
  ++tenant.n_running;
  ++n_running_;
  RemoveFromLine(sequence);
}

void FairQueue::Return(Sequence* sequence) {
  Tenant& tenant = TenantOf(*sequence);
  ++tenant.n_waiting;
  --tenant.n_running;
  --n_running_;
  AddToLine(sequence);
}

void FairQueue::Charge(const Sequence& sequence, int64_t n_tokens) {
  TenantOf(sequence).served += n_tokens;
}

Sequence* FairQueue::Next() const {
  for (const auto& [level, lines] : lines_) {
    using Key = std::tuple<int64_t, int, int64_t>;
    Sequence* next = nullptr;
    Key least;
    for (const auto& [name, line] : lines.of_tenant) {
      const auto first =
          std::find_if(line.begin(), line.end(), [](const auto& waiting) {
            return waiting.second->in_flight_step_id == 0;
          });
      if (first == line.end()) continue;
      const Tenant& tenant = tenants_.at(name);
      const Key key = {tenant.served, tenant.n_running, first->first};
      if (next == nullptr || key < least) {
        next = first->second;
        least = key;
      }
    }
    if (next != nullptr) return next;
  }
  return nullptr;
}

bool FairQueue::MayReplace(const Sequence& sequence,
                           const Sequence& running) const {
  if (sequence.level() != running.level()) return false;
  const Tenant& mine = tenants_.at(sequence.parameters.tenant);
  const Tenant& other = tenants_.at(running.parameters.tenant);
  return mine.served <= other.served && mine.n_running + 1 < other.n_running;
}

int64_t FairQueue::ServedTo(const Sequence& sequence) const {
  return tenants_.at(sequence.parameters.tenant).served;
}

int FairQueue::RunningOf(const Sequence& sequence) const {
  return tenants_.at(sequence.parameters.tenant).n_running;
}

int64_t FairQueue::PromptTokensWaiting(const Sequence::Level& level) const {
  int64_t n = 0;
  for (const auto& [line_level, lines] : lines_) {
    if (line_level > level) break;
    n += lines.n_prompt_tokens;
  }
  return n;
}

std::vector<Sequence*> FairQueue::Waiting() const {
  std::vector<Sequence*> waiting;
  for (const auto& [level, lines] : lines_) {
    for (const auto& [name, line] : lines.of_tenant) {
      for (const auto& [id, sequence] : line) waiting.push_back(sequence);
    }
  }
  std::sort(waiting.begin(), waiting.end(),
            [](const Sequence* a, const Sequence* b) {
              return a->rank() < b->rank();
            });
  return waiting;
}

void FairQueue::AddToLine(Sequence* sequence) {
  Lines& lines = lines_[sequence->level()];
  lines.of_tenant[sequence->parameters.tenant].insert({sequence->id, sequence});
  lines.n_prompt_tokens += sequence->n_prompt;
  ++n_waiting_;
}

void FairQueue::RemoveFromLine(Sequence* sequence) {
  const auto level = lines_.find(sequence->level());
  CHECK(level != lines_.end());
  Lines& lines = level->second;
  const auto line = lines.of_tenant.find(sequence->parameters.tenant);
  CHECK(line != lines.of_tenant.end());
  CHECK(line->second.erase({sequence->id, sequence}) == 1);
  lines.n_prompt_tokens -= sequence->n_prompt;
  if (line->second.empty()) lines.of_tenant.erase(line);
  if (lines.of_tenant.empty()) lines_.erase(level);
  --n_waiting_;
}

}  // namespace tern
