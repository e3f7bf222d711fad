#ifndef KERNELS_CANONICAL_SUM_H_
#define KERNELS_CANONICAL_SUM_H_

namespace tern {

// The long float sum of docs/exactness.md, section 2: 16 lanes by index mod 16
// and a fixed tree. What the reference kernels add with; not for speed.
class CanonicalSum {
 public:
  // Adds element `index` as x, or as the product x * y with one rounding.
  // REQUIRES: indexes ascend within a lane.
  void Add(int index, float x);
  void AddProduct(int index, float x, float y);

  float Total() const;

 private:
  float lanes_[16] = {};
};

}  // namespace tern

#endif  // KERNELS_CANONICAL_SUM_H_
