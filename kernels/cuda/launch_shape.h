#ifndef KERNELS_CUDA_LAUNCH_SHAPE_H_
#define KERNELS_CUDA_LAUNCH_SHAPE_H_

namespace tern::simt {

// How many blocks of how many threads one kernel call has. Blocks are numbered
// in three dimensions, threads in one.
struct LaunchShape {
  int grid_x = 1;
  int grid_y = 1;
  int grid_z = 1;
  int threads = 32;      // of a block; a multiple of 32
  int shared_bytes = 0;  // of dynamic shared memory, of a block
};

}  // namespace tern::simt

#endif  // KERNELS_CUDA_LAUNCH_SHAPE_H_
