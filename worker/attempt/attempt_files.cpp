#include "worker/attempt/attempt_files.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/limits.h"
#include "base/utf8.h"

namespace assay {
namespace {

using nlohmann::json;

std::string dump(const json& value) {
  return value.dump(2) + "\n";
}

// Texts are cut to their limits here, so that limits::attempt_file_bytes holds for every file: an error's head and a
// log's tail are what tells most. Any byte may be in them, and the file can be written all the same.
json to_json(const AttemptOutcome& o) {
  return {{"result", to_string(o.result)},
          {"reason", to_string(o.reason)},
          {"error", to_utf8(cut_end(o.error, limits::error_chars))},
          {"operation", to_utf8(cut_end(o.operation, limits::name_chars))},
          {"tensor", to_utf8(cut_end(o.tensor, limits::name_chars))},
          {"step", o.step},
          {"exit_code", o.exit_code},
          {"signal", o.signal},
          {"peak_mem_mib", o.peak_mem_mib},
          {"log_tail", to_utf8(cut_start(o.log_tail, limits::log_tail_bytes))}};
}

template <WordEnum E>
E word_at(const json& value, const char* key) {
  auto word = parse_word<E>(value.at(key).get_ref<const std::string&>());
  if (!word.ok()) throw std::invalid_argument(fmt::format("{}: {}", key, word.error().message));
  return *word;
}

AttemptOutcome outcome_from(const json& value) {
  AttemptOutcome o;
  o.result = word_at<AttemptResult>(value, "result");
  o.reason = word_at<FailureReason>(value, "reason");
  o.error = value.at("error").get<std::string>();
  o.operation = value.at("operation").get<std::string>();
  o.tensor = value.at("tensor").get<std::string>();
  o.step = value.at("step").get<int64_t>();
  o.exit_code = value.at("exit_code").get<int>();
  o.signal = value.at("signal").get<int>();
  o.peak_mem_mib = value.at("peak_mem_mib").get<double>();
  o.log_tail = value.at("log_tail").get<std::string>();
  return o;
}

json to_json(const LeaseRecord& r) {
  json value = {{"attempt_id", r.attempt_id},
                {"lease_epoch", r.lease_epoch},
                {"attempt_key", r.attempt_key},
                {"attempt", r.attempt},
                {"run", r.run},
                {"timeout_s", r.timeout_s},
                {"started_at_unix_ms", r.started_at_unix_ms},
                {"stop_reason", r.stop_reason == StopReason::none ? "" : to_string(r.stop_reason)}};
  if (r.trainer)
    value["trainer"] = {
        {"pid", r.trainer->pid}, {"start_ticks", r.trainer->start_ticks}, {"boot_id", r.trainer->boot_id}};
  if (r.outcome) value["outcome"] = to_json(*r.outcome);
  return value;
}

LeaseRecord lease_from(const json& value) {
  LeaseRecord r;
  r.attempt_id = value.at("attempt_id").get<int64_t>();
  r.lease_epoch = value.at("lease_epoch").get<int64_t>();
  r.attempt_key = value.value("attempt_key", "");  // not in files of an older worker
  r.attempt = value.at("attempt").get<int64_t>();
  r.run = value.at("run").get<std::string>();
  r.timeout_s = value.at("timeout_s").get<int64_t>();
  r.started_at_unix_ms = value.at("started_at_unix_ms").get<int64_t>();
  if (!value.at("stop_reason").get_ref<const std::string&>().empty())  // nothing has asked it to stop
    r.stop_reason = word_at<StopReason>(value, "stop_reason");
  if (const auto trainer = value.find("trainer"); trainer != value.end())
    r.trainer = ProcessIdentity{trainer->at("pid").get<pid_t>(), trainer->at("start_ticks").get<int64_t>(),
                                trainer->at("boot_id").get<std::string>()};
  if (const auto outcome = value.find("outcome"); outcome != value.end()) r.outcome = outcome_from(*outcome);
  return r;
}

Progress progress_from(const json& value) {
  return {word_at<Phase>(value, "phase"), value.at("resumed_from_step").get<int64_t>()};
}

// Nothing if there is no file, data_loss if it does not hold what `from` wants. Unknown keys are ignored, so that files
// of a newer program can be read.
template <class T>
Result<std::optional<T>> read_json(const std::string& path, T (*from)(const json&)) {
  const auto text = read_file(path, limits::attempt_file_bytes);
  if (!text.ok() && text.error().code == ErrorCode::not_found) return std::optional<T>();
  if (!text.ok()) return text.error();
  try {
    return std::optional<T>(from(json::parse(*text)));
  } catch (const std::exception& e) {  // json::exception, or a word that is not known
    return Error{ErrorCode::data_loss, fmt::format("{} is damaged: {}", path, e.what())};
  }
}

}  // namespace

Status write_progress(const AttemptFolder& folder, const Progress& progress) {
  return write_file_atomically(folder.progress(), dump({{"phase", to_string(progress.phase)},
                                                        {"resumed_from_step", progress.resumed_from_step}}));
}

Result<std::optional<Progress>> read_progress(const AttemptFolder& folder) {
  return read_json(folder.progress(), progress_from);
}

Status write_result(const AttemptFolder& folder, const AttemptOutcome& outcome) {
  return write_file_atomically(folder.result(), dump(to_json(outcome)));
}

Result<std::optional<AttemptOutcome>> read_result(const AttemptFolder& folder) {
  return read_json(folder.result(), outcome_from);
}

Status write_lease(const AttemptFolder& folder, const LeaseRecord& lease) {
  return write_file_atomically(folder.lease(), dump(to_json(lease)));
}

Result<std::optional<LeaseRecord>> read_lease(const AttemptFolder& folder) {
  return read_json(folder.lease(), lease_from);
}

}  // namespace assay
