#ifndef CLI_DOCTOR_H_
#define CLI_DOCTOR_H_

#include "cli/command.h"

namespace tern {

// tern doctor: looks for what is wrong with a cluster.
Command DoctorCommand();

}  // namespace tern

#endif  // CLI_DOCTOR_H_
