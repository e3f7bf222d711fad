#ifndef CLI_TERN_TESTING_H_
#define CLI_TERN_TESTING_H_

// What the tests share that run the program itself against a fake cluster.

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/fake_cluster.h"
#include "gtest/gtest.h"

namespace tern {

inline constexpr absl::Duration kPatience = absl::Seconds(30);

inline std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// What somebody types at.
class Terminal {
 public:
  Terminal() : fd_(posix_openpt(O_RDWR | O_NOCTTY)) {
    EXPECT_GE(fd_, 0);
    EXPECT_EQ(grantpt(fd_), 0);
    EXPECT_EQ(unlockpt(fd_), 0);
  }
  ~Terminal() { close(fd_); }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  std::string path() const { return ptsname(fd_); }
  void Type(absl::string_view text) const {
    EXPECT_EQ(write(fd_, text.data(), text.size()),
              static_cast<ssize_t>(text.size()));
  }

 private:
  const int fd_;
};

// `tern` with these arguments, running. Its output goes to files.
class Process {
 public:
  // At `terminal`, which outlives it, in place of `input` if not null.
  explicit Process(std::vector<std::string> arguments,
                   const std::string& input = "",
                   std::vector<std::string> environment = {},
                   const Terminal* terminal = nullptr) {
    static std::atomic<int> next{0};
    base_ = absl::StrCat(testing::TempDir(), "/tern-", getpid(), "-", ++next);
    std::ofstream(base_ + ".in") << input;
    const std::string program =
        absl::StrCat(std::getenv("TEST_SRCDIR"), "/",
                     std::getenv("TEST_WORKSPACE"), "/cli/tern");
    arguments.insert(arguments.begin(), program);
    const auto pointers = [](std::vector<std::string>& strings) {
      std::vector<char*> result;
      for (std::string& s : strings) result.push_back(s.data());
      result.push_back(nullptr);
      return result;
    };
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    const std::string in = terminal ? terminal->path() : base_ + ".in",
                      out = base_ + ".out", err = base_ + ".err";
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, in.c_str(),
                                     O_RDONLY | O_NOCTTY, 0);
    constexpr int kNew = O_WRONLY | O_CREAT | O_TRUNC;
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, out.c_str(), kNew,
                                     0600);
    posix_spawn_file_actions_addopen(&files, STDERR_FILENO, err.c_str(), kNew,
                                     0600);
    EXPECT_EQ(
        posix_spawn(&pid_, program.c_str(), &files, nullptr,
                    pointers(arguments).data(), pointers(environment).data()),
        0);
    posix_spawn_file_actions_destroy(&files);
  }

  void Interrupt() { kill(pid_, SIGINT); }

  // Waits for the end and returns the exit code; -1 when a signal killed it.
  int Wait() {
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  std::string out() const { return ReadAll(base_ + ".out"); }
  std::string err() const { return ReadAll(base_ + ".err"); }

 private:
  std::string base_;
  pid_t pid_ = 0;
};

// `tern` beside a fake cluster, which answers every prompt alike.
class TernTest : public testing::Test {
 protected:
  TernTest() {
    fake_.on_stream = [](auto* context, auto& request, auto* writer) {
      return StreamPieces(request, {"to ", "be\n", "or"}, writer);
    };
  }

  // Runs `tern` with --server set, keeps its output, returns its exit code.
  int Tern(std::vector<std::string> arguments, const std::string& input = "") {
    arguments.push_back("--server=" + fake_.address());
    return TernAsIs(arguments, input);
  }

  int TernAsIs(std::vector<std::string> arguments,
               const std::string& input = "",
               std::vector<std::string> environment = {}) {
    Process process(std::move(arguments), input, std::move(environment));
    const int code = process.Wait();
    out_ = process.out();
    err_ = process.err();
    return code;
  }

  bool Said(absl::string_view text) const {
    return absl::StrContains(err_, text);
  }

  FakeCluster fake_;
  std::string out_;
  std::string err_;
};

}  // namespace tern

#endif  // CLI_TERN_TESTING_H_
