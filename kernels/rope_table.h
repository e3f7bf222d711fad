#ifndef KERNELS_ROPE_TABLE_H_
#define KERNELS_ROPE_TABLE_H_

#include <cstddef>
#include <vector>

namespace tern {

// Cosines and sines of every position's angles: position * theta^(-2i/dim).
//
// Angles and functions are computed in float64 by our own code (no libm: its
// last bits differ between machines) and rounded to float32 once. Immutable
// after construction; safe to share.
class RopeTable {
 public:
  // REQUIRES: dim even and positive; theta > 0; n_positions >= 1.
  RopeTable(int dim, double theta, int n_positions);

  // float [dim / 2]. REQUIRES: 0 <= position < n_positions.
  const float* cos(int position) const { return &cos_[position * half_]; }
  const float* sin(int position) const { return &sin_[position * half_]; }

 private:
  size_t half_;
  std::vector<float> cos_;  // [n_positions, dim / 2]
  std::vector<float> sin_;  // [n_positions, dim / 2]
};

}  // namespace tern

#endif  // KERNELS_ROPE_TABLE_H_
