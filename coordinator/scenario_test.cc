// Plays the scripts of coordinator/scenarios/ to the scheduler: what comes to
// wait, what each step holds, what is lost, and what is answered. Each line is
// a command; README.md there lists them.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "coordinator/testing/toy_pipelines.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

using Words = std::vector<std::string>;

int ToInt(absl::string_view text) {
  int value = 0;
  EXPECT_TRUE(absl::SimpleAtoi(text, &value)) << "not a number: " << text;
  return value;
}

// "key=value" words after the first `n`.
std::map<std::string, std::string> Settings(const Words& words, size_t n) {
  std::map<std::string, std::string> settings;
  for (size_t i = n; i < words.size(); ++i) {
    const std::pair<std::string, std::string> pair =
        absl::StrSplit(words[i], absl::MaxSplits('=', 1));
    EXPECT_TRUE(settings.insert(pair).second) << "twice: " << pair.first;
  }
  return settings;
}

// Takes a setting out, so that what is left is a mistake in the script.
std::string Take(const std::string& key, const std::string& fallback,
                 std::map<std::string, std::string>* settings) {
  const auto it = settings->find(key);
  if (it == settings->end()) return fallback;
  std::string value = std::move(it->second);
  settings->erase(it);
  return value;
}

class Scenario {
 public:
  void Play(const std::string& line) {
    const Words words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    const std::string& command = words[0];
    if (command == "options") {
      SetOptions(Settings(words, 1));
    } else if (command == "pipeline") {
      auto settings = Settings(words, 2);
      toys_->StartPipeline(ToInt(Take("blocks", "", &settings)),
                           ToInt(words.at(1)));
    } else if (command == "lose") {
      toys_->StopPipeline(ToInt(words.at(1)));
    } else if (command == "ask") {
      EXPECT_TRUE(Ask(words).ok());
    } else if (command == "refused") {
      EXPECT_FALSE(Ask(words).ok());
    } else if (command == "abort") {
      EXPECT_TRUE(toys_->scheduler_.Abort(ToInt(words.at(1))));
    } else if (command == "plan") {
      const std::pair<std::string, std::string> parts =
          absl::StrSplit(line, absl::MaxSplits(':', 1));
      EXPECT_EQ(Plan(ToInt(parts.first.substr(command.size() + 1))),
                absl::StripAsciiWhitespace(parts.second));
    } else if (command == "finish") {
      EXPECT_TRUE(toys_->Finish(ToInt(words.at(1))));
    } else if (command == "steps") {
      for (int i = 0; i < ToInt(words.at(1)); ++i) toys_->Step();
    } else if (command == "run") {
      toys_->RunAll();
    } else if (command == "answered") {
      const int id = ToInt(words.at(1));
      auto settings = Settings(words, 2);
      toys_->ExpectAnswer(id, ToInt(Take("tokens", "", &settings)));
      EXPECT_EQ(toys_->ends_.count(id), 1u);
      const std::string cached = Take("cached", "", &settings);
      if (!cached.empty()) {
        EXPECT_EQ(toys_->ends_[id].n_prompt_cached, ToInt(cached));
      }
      EXPECT_TRUE(settings.empty());
    } else if (command == "preempted") {
      EXPECT_EQ(toys_->scheduler_.counters().preemptions, ToInt(words.at(1)));
    } else if (command == "waiting") {
      EXPECT_EQ(toys_->scheduler_.n_waiting(), ToInt(words.at(1)));
    } else {
      ADD_FAILURE() << "no such command: " << command;
    }
  }

  // Nothing is left when a script ends.
  void End() {
    toys_->RunAll();
    EXPECT_EQ(toys_->scheduler_.n_sequences(), 0);
    for (const auto& [index, workers] : toys_->pipelines_) {
      const Lane* lane = toys_->scheduler_.lane(index);
      if (lane == nullptr) continue;
      EXPECT_EQ(lane->blocks().n_in_use(), 0);
      EXPECT_EQ(workers.toys.back()->n_sequences(), 0);
    }
  }

 private:
  void SetOptions(std::map<std::string, std::string> settings) {
    Scheduler::Options options;
    options.max_step_tokens = ToInt(Take("max_step_tokens", "512", &settings));
    options.max_sequences = ToInt(Take("max_sequences", "8", &settings));
    options.max_waiting = ToInt(Take("max_waiting", "100", &settings));
    options.min_prefill_tokens =
        ToInt(Take("min_prefill_tokens", "4", &settings));
    options.max_draft_tokens = ToInt(Take("drafts", "0", &settings));
    options.prefix_cache = Take("prefix_cache", "on", &settings) == "on";
    const int n_stages = ToInt(Take("stages", "1", &settings));
    const bool looks_ahead = Take("look_ahead", "off", &settings) == "on";
    EXPECT_TRUE(settings.empty()) << settings.begin()->first;
    toys_ = std::make_unique<ToyPipelines>(options, 0, n_stages, 0);
    toys_->looks_ahead_ = looks_ahead;
  }

  // ask ID TEXT:TOKENS output=N [tenant=NAME] [priority=N] [class=batch]
  absl::Status Ask(const Words& words) {
    const Words text = absl::StrSplit(words.at(2), ':');
    std::vector<int32_t> prompt(ToInt(text.at(1)));
    for (size_t i = 0; i < prompt.size(); ++i) {
      prompt[i] =
          (text[0][0] * 31 + static_cast<int>(i)) % ToyPipelines::kVocab;
    }
    auto settings = Settings(words, 3);
    SequenceParameters parameters;
    parameters.tenant = Take("tenant", "", &settings);
    parameters.priority = ToInt(Take("priority", "0", &settings));
    if (Take("class", "", &settings) == "batch") {
      parameters.sequence_class = SequenceClass::kBatch;
    }
    const int n_output = ToInt(Take("output", "", &settings));
    EXPECT_TRUE(settings.empty()) << settings.begin()->first;
    return toys_->Add(ToInt(words.at(1)), prompt, n_output, parameters);
  }

  std::string Plan(int index) {
    if (!toys_->Start(index)) return "nothing";
    std::map<int64_t, int64_t> ids;  // by run id
    for (const auto& [rank, sequence] :
         toys_->scheduler_.lane(index)->running()) {
      ids[sequence->run_id] = sequence->id;
    }
    Words rows;
    for (const StepRow& row : toys_->plans_.back().rows) {
      const int end = row.position + row.n_tokens() - row.n_drafts;
      std::string text =
          absl::StrCat(ids.at(row.run_id), "[", row.position, ",", end, ")");
      if (row.sampled_in_step_id > 0) text += "?";
      if (row.n_drafts > 0) absl::StrAppend(&text, "~", row.n_drafts);
      if (row.samples) text += "*";
      if (row.n_taken_over_blocks > 0) {
        absl::StrAppend(&text, "+", row.n_taken_over_blocks);
      }
      rows.push_back(std::move(text));
    }
    return rows.empty() ? "releases" : absl::StrJoin(rows, " ");
  }

  std::unique_ptr<ToyPipelines> toys_;
};

TEST(Scenario, EachScriptGoesAsWritten) {
  std::vector<std::filesystem::path> scripts;
  for (const auto& entry :
       std::filesystem::directory_iterator("coordinator/scenarios")) {
    if (entry.path().extension() == ".txt") scripts.push_back(entry.path());
  }
  std::sort(scripts.begin(), scripts.end());
  EXPECT_GE(scripts.size(), 6u);
  for (const std::filesystem::path& script : scripts) {
    std::ifstream file(script);
    Scenario scenario;
    std::string line;
    for (int number = 1; std::getline(file, line); ++number) {
      SCOPED_TRACE(absl::StrCat(script.string(), ":", number, ": ", line));
      const absl::string_view text = absl::StripAsciiWhitespace(line);
      if (text.empty() || text[0] == '#') continue;
      scenario.Play(std::string(text));
    }
    SCOPED_TRACE(script.string());
    scenario.End();
  }
}

}  // namespace
}  // namespace tern
