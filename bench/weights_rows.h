#ifndef BENCH_WEIGHTS_ROWS_H_
#define BENCH_WEIGHTS_ROWS_H_

#include <memory>

#include "model/model_source.h"

namespace tern {

// Registers rows for what a worker does with a model's files before it serves
// the whole model: hashing them, fetching them from a peer over loopback (read,
// sent, hashed and written to a cache in the temporary folder), and packing
// them. bytes_per_second are those of the files by the clock on the wall; the
// time on CPUs is that of the process, so of both ends of a fetch.
void RegisterWeightsRows(std::shared_ptr<const ModelSource> source);

}  // namespace tern

#endif  // BENCH_WEIGHTS_ROWS_H_
