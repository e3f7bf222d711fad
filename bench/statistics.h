#ifndef BENCH_STATISTICS_H_
#define BENCH_STATISTICS_H_

#include <cstdint>
#include <vector>

namespace tern {

// What a list of numbers looks like. All zero for an empty one.
struct Summary {
  int64_t count = 0;
  double mean = 0;
  double p50 = 0;
  double p90 = 0;
  double p99 = 0;
  double max = 0;
};

// The smallest number that at least `share` of them do not exceed (nearest
// rank, no interpolation): of 1..100 the 0.99 is 99, of {1, 2} the 0.5 is 1.
// REQUIRES: `sorted` is, and is not empty; share in (0, 1].
double Percentile(const std::vector<float>& sorted, double share);

// Sorts the numbers.
Summary Summarize(std::vector<float>* numbers);

// The one in the middle, or the mean of the two. REQUIRES: not empty.
double Median(std::vector<double> values);

}  // namespace tern

#endif  // BENCH_STATISTICS_H_
