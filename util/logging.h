#ifndef UTIL_LOGGING_H_
#define UTIL_LOGGING_H_

#include <sstream>

namespace tern {

enum class LogSeverity { kInfo, kWarning, kError, kFatal };

// Lines below this severity are not printed. Default kInfo. Thread-safe.
void SetMinLogSeverity(LogSeverity severity);

namespace internal {

// Collects one line and writes it to stderr with time, severity and place when
// destroyed; kFatal then aborts the process.
class LogMessage {
 public:
  LogMessage(LogSeverity severity, const char* file, int line);
  ~LogMessage();
  std::ostream& stream() { return stream_; }

 private:
  const LogSeverity severity_;
  std::ostringstream stream_;
};

// Gives `cond ? (void)0 : Voidify() & stream << ...` the type void.
struct Voidify {
  void operator&(std::ostream&) {}
};

}  // namespace internal
}  // namespace tern

// LOG(INFO) << "event=stage_loaded worker=" << id; one line per event,
// key=value, never per token.
#define LOG(severity) TERN_LOG_##severity.stream()
#define TERN_LOG_INFO TERN_LOG_(kInfo)
#define TERN_LOG_WARNING TERN_LOG_(kWarning)
#define TERN_LOG_ERROR TERN_LOG_(kError)
#define TERN_LOG_FATAL TERN_LOG_(kFatal)
#define TERN_LOG_(s)          \
  ::tern::internal::LogMessage( \
      ::tern::LogSeverity::s, __FILE__, __LINE__)

// Ends the process when an invariant of our own code is broken. Never for
// anything that a client, file, network or peer can cause.
#define CHECK(cond)                        \
  (cond) ? (void)0                         \
         : ::tern::internal::Voidify() &   \
               LOG(FATAL) << "CHECK failed: " #cond " "

#ifdef NDEBUG
#define DCHECK(cond) CHECK(true || (cond))
#else
#define DCHECK(cond) CHECK(cond)
#endif

#endif  // UTIL_LOGGING_H_
