#include "bench/serve_report.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/svg_plot.h"
#include "cli/text_table.h"
#include "nlohmann/json.hpp"

namespace tern {
namespace {

double PerSecond(double amount, const LoadResult& load) {
  const double s = absl::ToDoubleSeconds(load.window);
  return s > 0 ? amount / s : 0;
}

int64_t FailedOf(const LoadResult& load) {
  int64_t n = 0;
  for (const auto& [name, count] : load.errors) n += count;
  return n;
}

// Microseconds of `time` for each output token.
double PerToken(absl::Duration time, const LoadResult& load) {
  return load.n_output_tokens > 0
             ? absl::ToDoubleMicroseconds(time) /
                   static_cast<double>(load.n_output_tokens)
             : 0;
}

double TokensPerMessage(const LoadResult& load) {
  return load.n_messages > 0 ? static_cast<double>(load.n_output_tokens) /
                                   static_cast<double>(load.n_messages)
                             : 0;
}

std::string Number(double value) { return absl::StrFormat("%.2f", value); }

std::vector<std::string> Row(const std::string& name, const Summary& s) {
  return {name,          Number(s.mean), Number(s.p50),
          Number(s.p90), Number(s.p99),  Number(s.max)};
}

nlohmann::ordered_json JsonOf(const Summary& s) {
  return {{"count", s.count}, {"mean", s.mean}, {"p50", s.p50},
          {"p90", s.p90},     {"p99", s.p99},   {"max", s.max}};
}

}  // namespace

CoordinatorCpu CpuBetween(const CpuTimes& before, const CpuTimes& after) {
  CoordinatorCpu cpu;
  cpu.total = after.total - before.total;
  absl::Duration named;
  for (const auto& [name, time] : after.by_thread_name) {
    const auto it = before.by_thread_name.find(name);
    const absl::Duration used =
        it == before.by_thread_name.end() ? time : time - it->second;
    // Less when one of the name has ended meanwhile.
    if (used <= absl::ZeroDuration()) continue;
    cpu.by_thread_name[name] = used;
    named += used;
  }
  if (cpu.total > named) cpu.by_thread_name["(ended)"] = cpu.total - named;
  return cpu;
}

ServeReport MakeReport(LoadResult load) {
  ServeReport report;
  report.ttft_ms = Summarize(&load.ttft_ms);
  report.e2e_ms = Summarize(&load.e2e_ms);
  report.gap_ms = Summarize(&load.gap_ms);
  report.mean_gap_ms = Summarize(&load.mean_gap_ms);
  report.load = std::move(load);
  return report;
}

std::string TextOf(const ServeReport& report) {
  const LoadResult& load = report.load;
  std::string text;
  for (const auto& [name, value] : report.settings) {
    absl::StrAppendFormat(&text, "%-12s%s\n", name, value);
  }
  absl::StrAppendFormat(
      &text, "%-12s%.1f s: %d answered, %d cancelled as planned, %d failed",
      "requests", absl::ToDoubleSeconds(load.window), load.n_ok,
      load.n_cancelled, FailedOf(load));
  if (load.n_dropped > 0) {
    absl::StrAppend(&text, ", ", load.n_dropped, " not sent");
  }
  if (load.n_unfinished > 0) {
    absl::StrAppend(&text, ", ", load.n_unfinished, " unfinished");
  }
  text += "\n";
  for (const auto& [name, count] : load.errors) {
    absl::StrAppendFormat(&text, "%-12s%d %s\n", "", count, name);
  }
  if (!load.first_error.empty()) {
    absl::StrAppendFormat(&text, "%-12sfirst error: %s\n", "",
                          load.first_error);
  }
  absl::StrAppendFormat(&text, "%-12s%d under way, %d generating at most\n",
                        "streams", load.peak_under_way, load.peak_generating);
  absl::StrAppendFormat(
      &text, "%-12s%.1f output tokens/s, %.1f prompt tokens/s (%d cached)\n",
      "throughput", PerSecond(static_cast<double>(load.n_output_tokens), load),
      PerSecond(static_cast<double>(load.n_prompt_tokens), load),
      load.n_cached_prompt_tokens);
  absl::StrAppendFormat(
      &text, "%-12s%.2f requests/s answered, %.2f within the limits\n", "",
      PerSecond(static_cast<double>(load.n_ok), load),
      PerSecond(static_cast<double>(load.n_good), load));
  absl::StrAppendFormat(&text, "%-12s%.2f tokens each\n\n", "messages",
                        TokensPerMessage(load));
  text += TextTable({{"milliseconds", "mean", "p50", "p90", "p99", "max"},
                     Row("first token", report.ttft_ms),
                     Row("gap between tokens", report.gap_ms),
                     Row("mean gap of a request", report.mean_gap_ms),
                     Row("end to end", report.e2e_ms)});
  if (report.coordinator_cpu.has_value()) {
    const CoordinatorCpu& cpu = *report.coordinator_cpu;
    std::vector<std::vector<std::string>> rows = {
        {"coordinator CPU", "us per token", "cores"}};
    const auto add = [&](const std::string& name, absl::Duration time) {
      rows.push_back({name, Number(PerToken(time, load)),
                      Number(PerSecond(absl::ToDoubleSeconds(time), load))});
    };
    add("all threads", cpu.total);
    for (const auto& [name, time] : cpu.by_thread_name) add(name, time);
    absl::StrAppend(&text, "\n", TextTable(rows));
  }
  if (!report.stages.empty()) {
    std::vector<std::vector<std::string>> rows = {
        {"stage", "steps", "tokens", "idle %"}};
    for (const StageReport& stage : report.stages) {
      rows.push_back({stage.worker_id, absl::StrCat(stage.n_steps),
                      absl::StrCat(stage.n_tokens),
                      Number(100 * stage.idle_share)});
    }
    absl::StrAppend(&text, "\n", TextTable(rows));
  }
  return text;
}

std::string JsonOf(const ServeReport& report) {
  const LoadResult& load = report.load;
  nlohmann::ordered_json json;
  for (const auto& [name, value] : report.settings) {
    json["settings"][name] = value;
  }
  json["window_s"] = absl::ToDoubleSeconds(load.window);
  nlohmann::ordered_json errors = nlohmann::ordered_json::object();
  for (const auto& [name, count] : load.errors) errors[name] = count;
  json["requests"] = {{"ok", load.n_ok},
                      {"good", load.n_good},
                      {"cancelled", load.n_cancelled},
                      {"failed", FailedOf(load)},
                      {"not_sent", load.n_dropped},
                      {"unfinished", load.n_unfinished},
                      {"errors", errors},
                      {"first_error", load.first_error},
                      {"peak_under_way", load.peak_under_way},
                      {"peak_generating", load.peak_generating}};
  json["tokens"] = {{"output", load.n_output_tokens},
                    {"prompt", load.n_prompt_tokens},
                    {"cached_prompt", load.n_cached_prompt_tokens},
                    {"per_message", TokensPerMessage(load)}};
  json["per_second"] = {
      {"output_tokens",
       PerSecond(static_cast<double>(load.n_output_tokens), load)},
      {"prompt_tokens",
       PerSecond(static_cast<double>(load.n_prompt_tokens), load)},
      {"requests", PerSecond(static_cast<double>(load.n_ok), load)},
      {"good_requests", PerSecond(static_cast<double>(load.n_good), load)}};
  json["latency_ms"] = {{"first_token", JsonOf(report.ttft_ms)},
                        {"gap", JsonOf(report.gap_ms)},
                        {"mean_gap", JsonOf(report.mean_gap_ms)},
                        {"end_to_end", JsonOf(report.e2e_ms)}};
  if (report.coordinator_cpu.has_value()) {
    const CoordinatorCpu& cpu = *report.coordinator_cpu;
    nlohmann::ordered_json by_thread = nlohmann::ordered_json::object();
    for (const auto& [name, time] : cpu.by_thread_name) {
      by_thread[name] = PerToken(time, load);
    }
    json["coordinator_cpu"] = {{"seconds", absl::ToDoubleSeconds(cpu.total)},
                               {"us_per_token", PerToken(cpu.total, load)},
                               {"us_per_token_by_thread", by_thread}};
  }
  for (const StageReport& stage : report.stages) {
    json["stages"].push_back({{"worker_id", stage.worker_id},
                              {"steps", stage.n_steps},
                              {"tokens", stage.n_tokens},
                              {"idle_share", stage.idle_share}});
  }
  // The first error comes from a server, in whatever bytes.
  return json.dump(2, ' ', false,
                   nlohmann::ordered_json::error_handler_t::replace) +
         "\n";
}

std::string PlotOf(const ServeReport& report) {
  const LoadResult& load = report.load;
  Plot latency;
  latency.title = "Latencies";
  latency.x_label = "milliseconds";
  latency.y_label = "share not above";
  latency.log_x = true;
  latency.lines = {{"first token", CumulativeShares(load.ttft_ms)},
                   {"gap between tokens", CumulativeShares(load.gap_ms)},
                   {"end to end", CumulativeShares(load.e2e_ms)}};
  Plot throughput;
  throughput.title = "Throughput";
  throughput.x_label = "seconds";
  throughput.y_label = "output tokens/s";
  const double bucket_s = absl::ToDoubleSeconds(LoadResult::kBucket);
  Plot::Line line{"output tokens", {}};
  for (size_t i = 0; i < load.tokens_by_time.size(); ++i) {
    line.points.push_back(
        {(static_cast<double>(i) + 0.5) * bucket_s,
         static_cast<double>(load.tokens_by_time[i]) / bucket_s});
  }
  throughput.lines = {std::move(line)};
  return SvgOf({latency, throughput});
}

}  // namespace tern
