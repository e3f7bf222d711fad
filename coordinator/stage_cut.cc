#include "coordinator/stage_cut.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <set>
#include <utility>

#include "util/logging.h"

namespace tern {
namespace {

// Times are compared to this part of them.
constexpr double kPrecision = 1e-10;
// A round that is shorter by less is not looked for.
constexpr double kRoundPrecision = 1e-6;
// Cuts around what workers have refused are rare, and need not be the fastest.
constexpr double kAroundPrecision = 1e-3;
// Workers up to which all their orders are tried for them.
constexpr int kAllOrdersMax = 4;
// What a group is worth whose workers would be given what they have refused.
constexpr double kRefusedWorth = 1e-6;

// Sequences that `kv_blocks` have room for.
int RunningWith(const CutTask& task, int64_t kv_blocks) {
  const int64_t each =
      (task.context_tokens + task.kv_block_size - 1) / task.kv_block_size;
  return static_cast<int>(
      std::clamp<int64_t>(kv_blocks / each, 1, task.n_sequences));
}

// One stage of a micro-batch, when `n_running` share `n_stages`.
StepLoad LoadOf(const CutTask& task, int n_running, int n_stages) {
  const double n_tokens =
      static_cast<double>(n_running) / std::min(n_running, n_stages);
  return {n_tokens, n_tokens * task.context_tokens, n_tokens};
}

double LinkSeconds(const CutTask& task, const CutWorker& worker,
                   double n_tokens) {
  return n_tokens * static_cast<double>(task.hidden_bytes) *
         worker.link_s_per_byte;
}

// Layers for each worker, and whose are the last.
struct Shares {
  std::vector<int> n_layers;
  int head = -1;
  double slowest_s = 0;
  double cycle_s = std::numeric_limits<double>::infinity();
};

// Shares layers out for one size of the KV pool. "Time" is that of a stage for
// one micro-batch.
class Solver {
 public:
  Solver(const CutTask& task, absl::Span<const CutWorker> all,
         absl::Span<const int> chosen, int64_t kv_blocks)
      : n_layers_(task.n_layers),
        n_(static_cast<int>(chosen.size())),
        n_micro_(std::min(RunningWith(task, kv_blocks), n_)) {
    const StepLoad load = LoadOf(task, RunningWith(task, kv_blocks), n_);
    workers_.reserve(n_);
    for (const int index : chosen) {
      const CutWorker& from = all[index];
      Item w;
      w.layer_s = LayerSeconds(from.times, load);
      w.head_s = HeadSeconds(from.times, load);
      if (n_ > 1) {
        w.link_s = LinkSeconds(task, from, load.n_tokens);
        w.latency_s = from.link_latency_s;
      }
      const int64_t each = from.layer_bytes + kv_blocks * task.kv_block_bytes;
      const auto most = [&](int64_t bytes) {
        return static_cast<int>(
            bytes <= 0 ? 0 : std::min<int64_t>(bytes / each, n_layers_));
      };
      w.most = most(from.memory_bytes);
      w.most_with_head = most(from.memory_bytes - from.head_bytes);
      workers_.push_back(w);
    }
    by_speed_.resize(n_);
    std::iota(by_speed_.begin(), by_speed_.end(), 0);
    std::stable_sort(by_speed_.begin(), by_speed_.end(), [&](int a, int b) {
      return workers_[a].layer_s < workers_[b].layer_s;
    });
  }

  // No cycle is shorter.
  double LeastCycle() const {
    double speed = 0, links = 0;
    for (const Item& w : workers_) {
      speed += 1 / w.layer_s;
      links += w.latency_s;
    }
    const double round_s = n_layers_ * workers_[by_speed_[0]].layer_s + links;
    return std::max(n_micro_ * n_layers_ / speed, round_s);
  }

  // Without shares when the workers lack memory.
  Shares Solve() const {
    Shares best;
    if (n_ > n_layers_) return best;
    double longest = 0;
    for (const Item& w : workers_) {
      longest = std::max(longest, n_layers_ * w.layer_s + w.head_s + w.link_s);
    }
    // A shortest time of 0 means that nothing costs anything.
    double hi = std::max(longest, 1e-9);
    if (HeadWithin(hi) < 0) return best;
    const double all = hi;
    double lo = 0;
    while (hi - lo > kPrecision * hi) {
      const double middle = (lo + hi) / 2;
      (HeadWithin(middle) >= 0 ? hi : lo) = middle;
    }
    best = SharesWithin(hi, HeadWithin(hi));
    // The slowest stage cannot be faster; so when the round does not hold up,
    // this is the shortest cycle.
    if (Round(best) <= n_micro_ * best.slowest_s * (1 + kPrecision)) {
      return best;
    }
    for (int head = 0; head < n_; ++head) {
      const auto is_like_head = [&](const Item& w) {
        return w == workers_[head];
      };
      // One of those that are alike in all is enough.
      if (std::find_if(workers_.begin(), workers_.begin() + head,
                       is_like_head) == workers_.begin() + head) {
        ShortenRound(head, hi, all, &best);
      }
    }
    return best;
  }

  // Longer than any cycle.
  double LongestCycle() const {
    double longest = 0;
    for (const Item& w : workers_) {
      longest += n_layers_ * w.layer_s + w.head_s + w.link_s + w.latency_s;
    }
    return std::max(longest, 1e-9) * n_micro_;
  }

  // The cut of `order` (indices into the chosen) with the highest sum of
  // score(index, range) while its cycle is at most `cycle_s`, and among these
  // the one with the fastest slowest stage; no layers when there is none.
  static constexpr int64_t kImpossible = std::numeric_limits<int64_t>::min();
  struct Best {
    std::vector<int> n_layers;  // by place in the order
    int64_t score = kImpossible;
  };
  template <typename Score>
  Best FindBest(absl::Span<const int> order, const Score& score, double cycle_s,
                double precision = 1e-6) const {
    double hi = cycle_s / n_micro_;
    Best best = BestWithin(order, score, hi);
    if (best.score == kImpossible || RoundOf(order, best.n_layers) > cycle_s) {
      return {};
    }
    double lo = 0;
    while (hi - lo > precision * hi) {
      const double middle = (lo + hi) / 2;
      Best other = BestWithin(order, score, middle);
      if (other.score == best.score &&
          RoundOf(order, other.n_layers) <= cycle_s) {
        best = std::move(other);
        hi = middle;
      } else {
        lo = middle;
      }
    }
    return best;
  }

  // The highest score that any cut of `order` has.
  template <typename Score>
  int64_t HighestScore(absl::Span<const int> order, const Score& score) const {
    return BestWithin(order, score, LongestCycle()).score;
  }

  // Whether there is a cut of `order` in which no worker gets what it has
  // refused, however slow.
  bool HasCutAround(absl::Span<const int> order,
                    absl::Span<const CutWorker> workers) const {
    // can_begin[l]: the workers so far may have the first l layers.
    std::vector<bool> can_begin(n_layers_ + 1);
    can_begin[0] = true;
    for (int place = 0; place < n_; ++place) {
      const int i = order[place];
      const bool is_last = place == n_ - 1;
      const int most = is_last ? workers_[i].most_with_head : workers_[i].most;
      const auto may_have = [&](int begin, int end) {
        return RefusedLayers(workers[i].refused,
                             {begin, end, place == 0, is_last}) == 0;
      };
      std::vector<bool> can_end(n_layers_ + 1);
      for (int begin = 0; begin < n_layers_; ++begin) {
        if (!can_begin[begin]) continue;
        if (is_last) {
          if (n_layers_ - begin <= most && may_have(begin, n_layers_)) {
            return true;
          }
          continue;
        }
        // What may be had with more layers may be had with fewer.
        int low = begin;
        int high = std::min(begin + most, n_layers_ - 1);
        while (low < high) {
          const int middle = (low + high + 1) / 2;
          if (may_have(begin, middle)) {
            low = middle;
          } else {
            high = middle - 1;
          }
        }
        for (int end = begin + 1; end <= low; ++end) can_end[end] = true;
      }
      can_begin = std::move(can_end);
    }
    return false;
  }

  // Layers of `range` that are kept; a range that stays as it is counts more
  // than any part.
  int64_t LayersKept(const absl::optional<StageRange>& holds,
                     const StageRange& range) const {
    if (!holds.has_value()) return 0;
    const int overlap = std::min(holds->layer_end, range.layer_end) -
                        std::max(holds->layer_begin, range.layer_begin);
    const bool is_same = holds->layer_begin == range.layer_begin &&
                         holds->layer_end == range.layer_end &&
                         holds->has_embedding == range.has_embedding &&
                         holds->has_head == range.has_head;
    return std::max(overlap, 0) + (is_same ? n_layers_ : 0);
  }

 private:
  struct Item {
    double layer_s = 0;
    double head_s = 0;
    double link_s = 0;  // when it is not the last
    double latency_s = 0;
    int most = 0;  // layers that fit its memory
    int most_with_head = 0;

    bool operator==(const Item& o) const {
      return layer_s == o.layer_s && head_s == o.head_s && link_s == o.link_s &&
             latency_s == o.latency_s && most == o.most &&
             most_with_head == o.most_with_head;
    }
  };

  static int Quotient(double time, double each, int most) {
    // A time that is a multiple of `each` is one for as many.
    const double n = time * (1 + kPrecision) / each;
    return n >= most ? most : static_cast<int>(n);
  }
  int MostWithin(const Item& w, double time) const {
    if (w.link_s > time * (1 + kPrecision)) return 0;
    return Quotient(time, w.layer_s, w.most);
  }
  int MostWithHeadWithin(const Item& w, double time) const {
    if (w.head_s > time) return 0;
    return Quotient(time - w.head_s, w.layer_s, w.most_with_head);
  }

  // Who can have the head, when no stage takes longer than `time`; of several
  // who then have the most room for layers the last. -1 when nobody can.
  int HeadWithin(double time) const {
    int64_t sum = 0;
    int n_without = 0, without = -1;
    for (int i = 0; i < n_; ++i) {
      const int most = MostWithin(workers_[i], time);
      if (most == 0) ++n_without, without = i;
      sum += most;
    }
    if (n_without > 1) return -1;
    int head = -1, most_gained = 0;
    for (int i = 0; i < n_; ++i) {
      if (n_without == 1 && i != without) continue;
      const int with_head = MostWithHeadWithin(workers_[i], time);
      if (with_head == 0) continue;
      const int gained = with_head - MostWithin(workers_[i], time);
      if (head < 0 || gained >= most_gained) head = i, most_gained = gained;
    }
    return head >= 0 && sum + most_gained >= n_layers_ ? head : -1;
  }

  bool MemoryBinds(double time) const {
    return std::any_of(workers_.begin(), workers_.end(), [&](const Item& w) {
      return Quotient(time, w.layer_s, n_layers_) > w.most ||
             (w.head_s <= time && Quotient(time - w.head_s, w.layer_s,
                                           n_layers_) > w.most_with_head);
    });
  }

  // Whether it can be `head` itself.
  bool IsPossible(int head, double time) const {
    int64_t sum = 0;
    for (int i = 0; i < n_; ++i) {
      const int most = i == head ? MostWithHeadWithin(workers_[i], time)
                                 : MostWithin(workers_[i], time);
      if (most == 0) return false;
      sum += most;
    }
    return sum >= n_layers_;
  }

  // One layer for each, the others to the fastest that have room: the shortest
  // round. REQUIRES: IsPossible(head, time).
  Shares SharesWithin(double time, int head) const {
    Shares shares;
    shares.head = head;
    shares.n_layers.assign(n_, 1);
    int left = n_layers_ - n_;
    for (const int i : by_speed_) {
      const int most = i == head ? MostWithHeadWithin(workers_[i], time)
                                 : MostWithin(workers_[i], time);
      const int more = std::min(left, most - 1);
      shares.n_layers[i] += more;
      left -= more;
    }
    CHECK(left == 0);
    double slowest = 0;
    for (int i = 0; i < n_; ++i) {
      const Item& w = workers_[i];
      slowest = std::max(
          slowest, shares.n_layers[i] * w.layer_s + (i == head ? w.head_s : 0));
      if (i != head) slowest = std::max(slowest, w.link_s);
    }
    shares.cycle_s = std::max(n_micro_ * slowest, Round(shares));
    return shares;
  }

  double Round(const Shares& shares) const {
    double sum = 0;
    for (int i = 0; i < n_; ++i) {
      const Item& w = workers_[i];
      sum += shares.n_layers[i] * w.layer_s + w.latency_s +
             (i == shares.head ? w.head_s : w.link_s);
    }
    return sum;
  }
  double RoundOf(absl::Span<const int> order,
                 const std::vector<int>& n_layers) const {
    Shares shares;
    shares.n_layers.assign(n_, 0);
    for (int place = 0; place < n_; ++place) {
      shares.n_layers[order[place]] = n_layers[place];
    }
    shares.head = order.back();
    return Round(shares);
  }

  // With a longer slowest stage the round gets shorter: the best is where the
  // two meet, or just before.
  void ShortenRound(int head, double lo, double hi, Shares* best) const {
    if (!IsPossible(head, hi)) return;
    const auto take = [&](double time) {
      Shares shares = SharesWithin(time, head);
      if (shares.cycle_s < best->cycle_s * (1 - kPrecision)) {
        *best = std::move(shares);
      }
    };
    double round_s = Round(SharesWithin(hi, head));
    while (hi - lo > kPrecision * hi) {
      // Nothing in between is better by more than a hair.
      if (std::max(n_micro_ * lo, round_s) >=
          best->cycle_s * (1 - kRoundPrecision)) {
        return;
      }
      const double middle = (lo + hi) / 2;
      if (!IsPossible(head, middle)) {
        lo = middle;
        continue;
      }
      const double with_middle = Round(SharesWithin(middle, head));
      if (with_middle <= n_micro_ * middle) {
        hi = middle;
        round_s = with_middle;
      } else {
        lo = middle;
      }
    }
    if (IsPossible(head, lo)) take(lo);
    take(hi);
  }

  template <typename Score>
  Best BestWithin(absl::Span<const int> order, const Score& score,
                  double time) const {
    // best[place][l]: of the first `place` workers that have l layers.
    struct Entry {
      int64_t score = kImpossible;
      int n = 0;  // of the last of them
    };
    std::vector<std::vector<Entry>> best(n_ + 1,
                                         std::vector<Entry>(n_layers_ + 1));
    best[0][0].score = 0;
    for (int place = 0; place < n_; ++place) {
      const Item& w = workers_[order[place]];
      const bool is_last = place == n_ - 1;
      const int most =
          is_last ? MostWithHeadWithin(w, time) : MostWithin(w, time);
      for (int begin = 0; begin < n_layers_; ++begin) {
        const int64_t before = best[place][begin].score;
        if (before == kImpossible) continue;
        for (int n = std::min(most, n_layers_ - begin); n >= 1; --n) {
          Entry& entry = best[place + 1][begin + n];
          const int64_t sum =
              before +
              score(order[place], {begin, begin + n, place == 0, is_last});
          if (sum > entry.score) entry = {sum, n};
        }
      }
    }
    Best found;
    found.score = best[n_][n_layers_].score;
    if (found.score == kImpossible) return found;
    found.n_layers.resize(n_);
    int end = n_layers_;
    for (int place = n_; place > 0; --place) {
      found.n_layers[place - 1] = best[place][end].n;
      end -= best[place][end].n;
    }
    return found;
  }

  const int n_layers_;
  const int n_;
  const int n_micro_;
  std::vector<Item> workers_;
  std::vector<int> by_speed_;  // indices, fastest first
};

// Sizes of the KV pool that are tried, the largest first.
std::set<int64_t, std::greater<int64_t>> PoolSizes(const CutTask& task) {
  const int64_t each =
      (task.context_tokens + task.kv_block_size - 1) / task.kv_block_size;
  const int64_t all = each * task.n_sequences;
  std::set<int64_t, std::greater<int64_t>> sizes;
  for (const int64_t size : {all, all * 3 / 4, all / 2, all / 4, all / 8}) {
    sizes.insert(
        std::clamp<int64_t>(size, task.kv_blocks_least, task.kv_blocks_most));
  }
  sizes.insert(task.kv_blocks_least);
  return sizes;
}

struct Solved {
  Shares shares;
  int64_t kv_blocks = 0;
  double tokens_per_second = 0;
};

// Without shares when no cut gives more than `more_than` tokens per second.
Solved SolveAll(const CutTask& task, absl::Span<const CutWorker> workers,
                absl::Span<const int> chosen, double more_than) {
  Solved best;
  for (const int64_t kv_blocks : PoolSizes(task)) {
    const Solver solver(task, workers, chosen, kv_blocks);
    const int n_running = RunningWith(task, kv_blocks);
    if (n_running / solver.LeastCycle() <=
        std::max(best.tokens_per_second, more_than)) {
      continue;
    }
    Shares shares = solver.Solve();
    if (shares.head < 0) continue;
    const double rate = n_running / shares.cycle_s;
    if (rate > best.tokens_per_second * (1 + kPrecision)) {
      best = {std::move(shares), kv_blocks, rate};
    }
  }
  return best;
}

// By the first layer held; those that hold none where layers are missing.
std::vector<int> OrderOfHolders(absl::Span<const CutWorker> workers,
                                int n_layers) {
  std::vector<int> holders, others;
  for (int i = 0; i < static_cast<int>(workers.size()); ++i) {
    (workers[i].holds.has_value() ? holders : others).push_back(i);
  }
  std::stable_sort(holders.begin(), holders.end(), [&](int a, int b) {
    return workers[a].holds->layer_begin < workers[b].holds->layer_begin;
  });
  std::vector<int> order;
  size_t next = 0;
  int covered = 0;
  for (const int i : holders) {
    const StageRange& range = *workers[i].holds;
    if (range.layer_begin > covered && next < others.size()) {
      order.push_back(others[next++]);
    }
    order.push_back(i);
    covered = std::max(covered, range.layer_end);
  }
  // The rest goes behind the first, unless the last layers are missing too.
  const bool is_complete = covered >= n_layers;
  const auto place =
      is_complete && !order.empty() ? order.end() - 1 : order.end();
  order.insert(place, others.begin() + next, others.end());
  return order;
}

std::vector<CutStage> StagesOf(absl::Span<const int> order,
                               absl::Span<const int> n_layers) {
  std::vector<CutStage> stages;
  int begin = 0;
  for (size_t place = 0; place < order.size(); ++place) {
    stages.push_back({order[place], begin, begin + n_layers[place]});
    begin += n_layers[place];
  }
  return stages;
}

std::vector<int> Iota(size_t n) {
  std::vector<int> numbers(n);
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

bool AnyRefused(absl::Span<const CutWorker> workers) {
  return std::any_of(workers.begin(), workers.end(),
                     [](const CutWorker& w) { return !w.refused.empty(); });
}

// Orders that are tried to get around what workers have refused: `order`, then
// with two exchanged, then all others of a few workers.
std::vector<std::vector<int>> OrdersAround(const std::vector<int>& order,
                                           absl::Span<const CutWorker> all) {
  const size_t n = order.size();
  std::vector<std::vector<int>> orders = {order};
  for (size_t a = 0; a < n; ++a) {
    for (size_t b = a + 1; b < n; ++b) {
      if (all[order[a]].refused.empty() && all[order[b]].refused.empty()) {
        continue;
      }
      orders.push_back(order);
      std::swap(orders.back()[a], orders.back()[b]);
    }
  }
  if (n > kAllOrdersMax) return orders;
  std::vector<int> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  do {
    if (std::find(orders.begin(), orders.end(), sorted) == orders.end()) {
      orders.push_back(sorted);
    }
  } while (std::next_permutation(sorted.begin(), sorted.end()));
  return orders;
}

// An order among those tried, and a size of the KV pool, with which nobody gets
// what he has refused.
struct WayAround {
  std::vector<int> order;
  int64_t kv_blocks = 0;
};
absl::optional<WayAround> FindWayAround(const CutTask& task,
                                        absl::Span<const CutWorker> workers,
                                        const std::vector<int>& order,
                                        int64_t kv_blocks_wanted) {
  const std::vector<int> all = Iota(workers.size());
  const std::vector<std::vector<int>> orders = OrdersAround(order, workers);
  for (const int64_t kv_blocks :
       {kv_blocks_wanted, int64_t{task.kv_blocks_least}}) {
    const Solver solver(task, workers, all, kv_blocks);
    for (const std::vector<int>& each : orders) {
      if (solver.HasCutAround(each, workers)) {
        return WayAround{each, kv_blocks};
      }
    }
  }
  return absl::nullopt;
}

// A cut with fewer refused layers than `cut` has, if there is one among the
// orders tried.
void CutAround(const CutTask& task, absl::Span<const CutWorker> workers,
               const std::vector<int>& order, int64_t kv_blocks_wanted,
               StageCut* cut) {
  const auto score = [&](int i, const StageRange& range) {
    return -RefusedLayers(workers[i].refused, range);
  };
  absl::optional<WayAround> way =
      FindWayAround(task, workers, order, kv_blocks_wanted);
  const std::vector<int> all = Iota(workers.size());
  if (!way.has_value()) {
    // The least of evils takes longer to find.
    const Solver solver(task, workers, all, task.kv_blocks_least);
    int64_t best_score = -cut->refused_layers;
    for (const std::vector<int>& each : OrdersAround(order, workers)) {
      const int64_t highest = solver.HighestScore(each, score);
      if (highest <= best_score) continue;
      best_score = highest;
      way = WayAround{each, task.kv_blocks_least};
    }
    if (!way.has_value()) return;
  }
  const Solver solver(task, workers, all, way->kv_blocks);
  cut->stages = StagesOf(
      way->order,
      solver
          .FindBest(way->order, score, solver.LongestCycle(), kAroundPrecision)
          .n_layers);
  cut->refused_layers = RefusedLayers(task, workers, cut->stages);
  cut->kv_blocks =
      static_cast<int>(KvBlocksThatFit(task, workers, cut->stages));
  cut->forecast = ForecastCut(task, workers, cut->stages, cut->kv_blocks);
}

}  // namespace

CutForecast ForecastCut(const CutTask& task,
                        absl::Span<const CutWorker> workers,
                        absl::Span<const CutStage> stages, int kv_blocks) {
  const int n_stages = static_cast<int>(stages.size());
  CutForecast forecast;
  forecast.n_running = RunningWith(task, kv_blocks);
  forecast.n_micro_batches = std::min(forecast.n_running, n_stages);
  const StepLoad load = LoadOf(task, forecast.n_running, n_stages);
  double slowest = 0;
  for (int i = 0; i < n_stages; ++i) {
    const CutWorker& worker = workers[stages[i].worker];
    const bool is_last = i == n_stages - 1;
    const double stage_s =
        StageSeconds(worker.times, stages[i].layer_end - stages[i].layer_begin,
                     is_last, load);
    double link_s = n_stages == 1 ? 0 : worker.link_latency_s;
    if (!is_last) link_s += LinkSeconds(task, worker, load.n_tokens);
    forecast.stage_s.push_back(stage_s);
    forecast.link_s.push_back(link_s);
    forecast.round_s += stage_s + link_s;
    // While one micro-batch is on its way the next is computed.
    const double busy =
        is_last ? stage_s
                : std::max(stage_s, LinkSeconds(task, worker, load.n_tokens));
    if (busy > slowest) {
      slowest = busy;
      forecast.slowest_stage = i;
    }
  }
  forecast.cycle_s =
      std::max(forecast.round_s, forecast.n_micro_batches * slowest);
  forecast.is_round_bound =
      forecast.round_s >
      forecast.n_micro_batches * slowest * (1 + kRoundPrecision);
  if (forecast.cycle_s > 0) {
    forecast.tokens_per_second = forecast.n_running / forecast.cycle_s;
  }
  return forecast;
}

int64_t KvBlocksThatFit(const CutTask& task,
                        absl::Span<const CutWorker> workers,
                        absl::Span<const CutStage> stages) {
  int64_t n_blocks = task.kv_blocks_most;
  for (const CutStage& stage : stages) {
    const CutWorker& worker = workers[stage.worker];
    const int64_t n_layers = stage.layer_end - stage.layer_begin;
    const int64_t left =
        worker.memory_bytes - n_layers * worker.layer_bytes -
        (stage.layer_end == task.n_layers ? worker.head_bytes : 0);
    if (left < 0) return 0;
    n_blocks = std::min(n_blocks, left / (n_layers * task.kv_block_bytes));
  }
  return n_blocks;
}

int64_t RefusedLayers(const CutTask& task, absl::Span<const CutWorker> workers,
                      absl::Span<const CutStage> stages) {
  int64_t sum = 0;
  for (const CutStage& stage : stages) {
    sum += RefusedLayers(
        workers[stage.worker].refused,
        {stage.layer_begin, stage.layer_end, stage.layer_begin == 0,
         stage.layer_end == task.n_layers});
  }
  return sum;
}

absl::optional<StageCut> CutStages(const CutTask& task,
                                   absl::Span<const CutWorker> workers) {
  const std::vector<int> chosen = Iota(workers.size());
  const Solved solved = SolveAll(task, workers, chosen, 0);
  const Shares& shares = solved.shares;
  if (shares.head < 0) return absl::nullopt;
  // The last one last.
  std::vector<int> order = chosen;
  order.erase(order.begin() + shares.head);
  order.push_back(shares.head);
  std::vector<int> n_layers;
  n_layers.reserve(order.size());
  for (const int i : order) n_layers.push_back(shares.n_layers[i]);

  const bool any_holds =
      std::any_of(workers.begin(), workers.end(),
                  [](const CutWorker& w) { return w.holds.has_value(); });
  const bool any_refused = AnyRefused(workers);
  if (any_holds) {
    const Solver solver(task, workers, chosen, solved.kv_blocks);
    const auto score = [&](int i, const StageRange& range) {
      const int64_t kept = solver.LayersKept(workers[i].holds, range);
      return any_refused
                 ? kept - RefusedLayers(workers[i].refused, range) * kSameAgain
                 : kept;
    };
    const double cycle_s = shares.cycle_s * (1 + task.keep_slack);
    Solver::Best best = solver.FindBest(order, score, cycle_s);
    const std::vector<int> by_range = OrderOfHolders(workers, task.n_layers);
    Solver::Best other = solver.FindBest(by_range, score, cycle_s);
    // 0 keeps nothing, and is no reason to leave the fastest cut.
    const int64_t as_good = any_refused ? Solver::kImpossible : 0;
    if (other.score > std::max(best.score, as_good)) {
      best = std::move(other);
      order = by_range;
    }
    if (best.score > as_good) n_layers = best.n_layers;
  }
  StageCut cut;
  cut.stages = StagesOf(order, n_layers);
  cut.kv_blocks = static_cast<int>(KvBlocksThatFit(task, workers, cut.stages));
  cut.forecast = ForecastCut(task, workers, cut.stages, cut.kv_blocks);
  if (any_refused) {
    cut.refused_layers = RefusedLayers(task, workers, cut.stages);
    if (cut.refused_layers > 0) {
      CutAround(task, workers, order, solved.kv_blocks, &cut);
    }
  }
  return cut;
}

double CutRate(const CutTask& task, absl::Span<const CutWorker> workers,
               absl::Span<const int> chosen, double more_than) {
  std::vector<CutWorker> members;
  if (chosen.size() <= kAllOrdersMax) {
    for (const int i : chosen) {
      members.push_back(workers[i]);
      members.back().holds.reset();
    }
  }
  if (!AnyRefused(members)) {
    return SolveAll(task, workers, chosen, more_than).tokens_per_second;
  }
  const std::vector<int> all = Iota(members.size());
  const Solved solved = SolveAll(task, members, all, more_than);
  if (solved.shares.head < 0) return 0;
  const bool has_way =
      FindWayAround(task, members, all, solved.kv_blocks).has_value();
  return solved.tokens_per_second * (has_way ? 1 : kRefusedWorth);
}

}  // namespace tern
