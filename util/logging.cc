#include "util/logging.h"

#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace tern {
namespace {

std::atomic<int> min_severity{static_cast<int>(LogSeverity::kInfo)};

// The time of day in UTC, as 2026-11-22T17:26:07.123Z.
std::string Now() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc;
  gmtime_r(&now.tv_sec, &utc);
  char seconds[32];
  strftime(seconds, sizeof(seconds), "%Y-%m-%dT%H:%M:%S", &utc);
  char text[48];
  snprintf(text, sizeof(text), "%s.%03ldZ", seconds, now.tv_nsec / 1000000);
  return text;
}

}  // namespace

void SetMinLogSeverity(LogSeverity severity) {
  min_severity.store(static_cast<int>(severity), std::memory_order_relaxed);
}

namespace internal {

LogMessage::LogMessage(LogSeverity severity, const char* file, int line)
    : severity_(severity) {
  const char* base = std::strrchr(file, '/');
  stream_ << "IWEF"[static_cast<int>(severity)] << " " << Now() << " "
          << (base ? base + 1 : file) << ":" << line << "] ";
}

LogMessage::~LogMessage() {
  if (static_cast<int>(severity_) >=
      min_severity.load(std::memory_order_relaxed)) {
    stream_ << "\n";
    const std::string text = stream_.str();
    // One write, so that lines of several threads do not mix.
    ssize_t written = write(STDERR_FILENO, text.data(), text.size());
    (void)written;  // Nowhere left to report it.
  }
  if (severity_ == LogSeverity::kFatal) std::abort();
}

}  // namespace internal
}  // namespace tern
