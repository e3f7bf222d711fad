#include "coordinator/os_random.h"

#include <unistd.h>

#include "util/logging.h"

namespace tern {

uint64_t OsRandom() {
  uint64_t value;
  CHECK(getentropy(&value, sizeof(value)) == 0);
  return value;
}

}  // namespace tern
