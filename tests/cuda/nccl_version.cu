#include <nccl.h>

#include "tests/cuda/nccl_version.h"

namespace tern {

int LinkedNcclVersion() {
  int version = 0;
  return ncclGetVersion(&version) == ncclSuccess ? version : 0;
}

int CompiledNcclVersion() { return NCCL_VERSION_CODE; }

}  // namespace tern
