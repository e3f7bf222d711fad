#ifndef TOOLS_INTERRUPT_H_
#define TOOLS_INTERRUPT_H_

namespace tern {

// Makes SIGINT and SIGTERM set a mark for Interrupted() instead of ending the
// process, so that what is half done can be cleared away. A second one ends the
// process at once. To be called before other threads start.
void CatchInterrupts();

// Whether a signal has come. Thread-safe.
bool Interrupted();

}  // namespace tern

#endif  // TOOLS_INTERRUPT_H_
